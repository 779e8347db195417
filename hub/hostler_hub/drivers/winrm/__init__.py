"""Driver ``winrm``: agents on Windows machines on which nothing but Python is installed."""

from hostler_hub.drivers.winrm.driver import WinrmDriver

__all__ = ["WinrmDriver"]
