"""Instances on a Linux machine: processes, systemd units, files."""
