"""Driver ``ec2``: instances of Amazon EC2, and of services with the same API."""

from hostler_hub.drivers.ec2.driver import Ec2Driver

__all__ = ["Ec2Driver"]
