"""Instances on a Windows machine: processes, services, scheduled tasks, files."""
