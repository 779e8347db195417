"""Jobs on Linux: cgroups or a subreaper, and the spawner that starts processes."""
