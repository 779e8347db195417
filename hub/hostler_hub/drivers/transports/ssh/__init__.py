"""Commands and files over SSH, by paramiko."""
