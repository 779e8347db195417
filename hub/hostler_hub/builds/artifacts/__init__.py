"""Files of builds: stored artifacts, files to download, and the archives in which they are sent."""
