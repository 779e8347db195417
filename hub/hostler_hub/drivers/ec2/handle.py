"""The handle of an EC2 instance."""

from __future__ import annotations

from dataclasses import dataclass

from hostler_hub.drivers.contract import InstanceRef
from hostler_hub.drivers.handle import Handle


class Ec2Handle(Handle):
    """The id of the instance, its region, and the URL of the service (None: Amazon's own)."""

    DRIVER = "ec2"

    id: str
    region: str
    endpoint_url: str | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """The instance that a call of the contract is about; ``handle`` is None if it was lost."""

    worker: str
    instance: str
    epoch: int
    handle: Ec2Handle | None

    @classmethod
    def of(cls, ref: InstanceRef) -> Target:
        """Build the target from the reference, whose handle is parsed. Raises HandleRefused."""
        handle = None if ref.handle is None else Ec2Handle.parse(ref.handle, ref.instance)
        return cls(ref.worker, ref.instance, ref.epoch, handle)
