"""The agent: what runs on a worker. It connects out to the hub and runs commands in jobs."""

__version__ = "0.1.0"
