"""Jobs on Windows: Job Objects, processes started suspended, pipes, terminals."""
