"""Driver ``ec2``: instances in Amazon's cloud, and in what speaks its API."""

from hostler_hub.drivers.ec2.driver import Ec2Driver

__all__ = ["Ec2Driver"]
