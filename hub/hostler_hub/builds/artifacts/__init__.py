"""Files of builds: stored artifacts, files for downloads, and the archives they travel in."""
