"""Compares what providers list with what the registry expects, and settles the difference."""
