"""Driver ``ssh``: workers on machines that are reached by SSH."""

from hostler_hub.drivers.ssh.driver import SshDriver

__all__ = ["SshDriver"]
