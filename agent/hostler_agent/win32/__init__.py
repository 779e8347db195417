"""Windows' own functions, by ctypes."""
