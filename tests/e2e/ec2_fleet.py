"""A hub, its own way into a cloud, and instances that boot."""

from __future__ import annotations

import contextlib
import json
import sys
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2e.api import Api
from e2e.hub_process import HubProcess
from peers import ec2, ec2_machines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peers.ec2 import Ec2
    from peers.ec2_machines import Machine, Machines

_KEYS = {"access_key": {"env": "HOSTLER_SECRET_AWS"}, "secret_key": {"env": "HOSTLER_SECRET_AWS"}}


class Fleet:
    """The hub is not started yet."""

    def __init__(self, hub: HubProcess, cloud: Ec2, machines: Machines, python: str) -> None:
        self.hub, self.cloud, self.machines = hub, cloud, machines
        self.id = ""
        self._python = python

    def start(self, **options: Any) -> None:
        self.hub.start(**options)
        if self.id:  # it stays the same, and a hub that is to die may do so at once
            return
        with urllib.request.urlopen(f"{self.hub.url}/healthz") as answer:
            self.id = json.load(answer)["hub"]

    def api(self) -> Api:
        return Api(self.hub.url, self.hub.token)

    async def define(
        self, api: Api, *names: str, options: dict[str, Any] | None = None, **more: Any
    ) -> None:
        given = {
            "region": ec2.REGION,
            "ami": ec2.AMI,
            "instance_types": ["t3.micro"],
            "endpoint_url": self.cloud.url,
            "credentials": _KEYS,
            "python": self._python,
            **(options or {}),
        }
        await api.define(*names, driver="ec2", driver_options=given, **more)

    def living(self) -> dict[str, str]:
        """What the provider has of this hub: instance ULIDs by the provider's own ids."""
        return self.cloud.living(self.id)

    def leftovers(self) -> list[str]:
        """Instances at the provider, and machines that run."""
        return sorted({*self.living(), *self.machines.living()})

    async def machine_of(self, api: Api, worker: str) -> Machine:
        instance = (await api.worker(worker))["instance"]
        (found,) = (each for each, ulid in self.living().items() if ulid == instance)
        return self.machines[found]


@contextlib.contextmanager
def running_at(cloud_url: str, directory: Path) -> Iterator[Fleet]:
    """With a running hub; what it leaves behind is a failure. Workers' names are the tests' own."""
    with fleet_at(cloud_url, directory, sys.executable) as made:
        made.start()
        yield made
        assert made.hub.stop() == 0
        assert made.leftovers() == []


@contextlib.contextmanager
def fleet_at(cloud_url: str, directory: Path, python: str, name: str = "hub") -> Iterator[Fleet]:
    """A fleet in a cloud that others may use too; `python` is what its machines have."""
    # No pass of its own while a test counts what one finds.
    hub = HubProcess(directory / name, secret_aws="testing", reconcile_interval_s="86400")
    with (
        ec2.proxied(cloud_url) as cloud,
        ec2_machines.booting(cloud, lambda: hub.port) as machines,
    ):
        made = Fleet(hub, cloud, machines, python)
        try:
            yield made
        finally:
            hub.close()
            if made.id and (left := list(made.living())):
                cloud.client().terminate_instances(InstanceIds=left)
