"""Driver ``winrm``: agents on Windows machines that nothing was installed on but Python."""

from hostler_hub.drivers.winrm.driver import WinrmDriver

__all__ = ["WinrmDriver"]
