"""Commands and files over SSH, by fabric and paramiko."""
