"""Functions of Windows, called by ctypes."""
