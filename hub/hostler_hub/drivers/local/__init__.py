"""Driver ``local``: agents as processes of the hub's own machine."""

from hostler_hub.drivers.local.driver import LocalDriver

__all__ = ["LocalDriver"]
