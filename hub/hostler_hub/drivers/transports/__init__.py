"""Transports move commands and bytes to a machine and back; what they are for, drivers know."""
