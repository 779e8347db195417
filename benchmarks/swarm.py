"""A thousand agents in one process beside the hub: `python -m benchmarks.swarm SOCKET`.

They attach as real ones do and come back after a hub's end; they run nothing. A hub starts them by
``SwarmDriver``, which writes a line to the socket.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from hostler_hub.drivers.contract import (
    Capabilities,
    DriverOptions,
    Environment,
    Inspection,
    InstanceRef,
    InstanceSpec,
    Owned,
)
from hostler_hub.drivers.errors import ProviderFailed
from hostler_hub.drivers.fake.agent import FakeAgent
from hostler_hub.lifecycle.model import Presence


class SwarmOptions(DriverOptions):
    """Where the swarm listens."""

    socket: str


class SwarmDriver:
    """Starts agents of a swarm."""

    name: ClassVar[str] = "swarm"
    capabilities: ClassVar[Capabilities] = Capabilities()
    options_model: ClassVar[type[DriverOptions]] = SwarmOptions

    def __init__(self, environment: Environment) -> None:
        self._environment = environment

    async def create(self, spec: InstanceSpec) -> Mapping[str, Any]:
        order = {
            "start": spec.instance,
            "url": self._environment.connect_url,
            "worker": spec.worker,
            "epoch": spec.epoch,
            "token": spec.token,
        }
        await _send(spec.options["socket"], order)
        return {"version": 1}

    async def inspect(self, ref: InstanceRef) -> Inspection:
        del ref
        return Inspection(Presence.RUNNING, "", {"version": 1})

    async def destroy(self, ref: InstanceRef) -> None:
        await _send(ref.options["socket"], {"stop": ref.instance})

    async def list_owned(self, places: Sequence[Mapping[str, Any]]) -> Sequence[Owned]:
        del places
        raise ProviderFailed("swarm: it keeps no list")

    async def aclose(self) -> None:
        """The swarm goes on."""


async def _send(socket: str, order: Mapping[str, Any]) -> None:
    _, writer = await asyncio.open_unix_connection(socket)
    writer.write(json.dumps(order).encode() + b"\n")
    writer.close()
    await writer.wait_closed()


async def swarm(socket: str) -> None:
    """Serve orders for ever."""
    agents: dict[str, FakeAgent] = {}

    async def obey(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        order = json.loads(await reader.readline())
        writer.close()
        if "stop" in order:
            if agent := agents.pop(order["stop"], None):
                await agent.aclose()
            return
        spec = InstanceSpec(order["worker"], order["start"], order["epoch"], order["token"], {})
        agents[spec.instance] = FakeAgent(order["url"], spec)
        agents[spec.instance].start()

    server = await asyncio.start_unix_server(obey, socket, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(swarm(sys.argv[1]))
