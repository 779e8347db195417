"""`LocalDriver`: a host driver whose only machine is the hub's own.

An agent is identified by its mark, pid, start time and boot, so that a signal is never sent to a
bare pid (E6). It gets a few variables of the hub's environment and no more (V14). `hostler-agent
sweep` finds and kills what a killed agent left behind.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

from hostler_agent.instances.directories import tail
from hostler_agent.instances.launch import LOG
from hostler_hub.drivers.contract import (
    Capabilities,
    Environment,
    Inspection,
    InstanceRef,
    InstanceSpec,
    Owned,
)
from hostler_hub.drivers.errors import HostFailed
from hostler_hub.drivers.hosts.driver import HostDriver
from hostler_hub.drivers.hosts.host import Site
from hostler_hub.drivers.hosts.options import HostHandle
from hostler_hub.drivers.local.host import THREADS, Children, LocalHost
from hostler_hub.drivers.local.options import LocalOptions
from hostler_hub.lifecycle.model import Presence


class LocalHandle(HostHandle[LocalOptions]):
    """The handle of an instance on this machine. Version 1 had `pid`, `started` and `boot` of the
    process, and no options.
    """

    DRIVER = "local"
    VERSION = 2
    UNDERSTOOD = frozenset({1, 2})

    @classmethod
    def upgrade(cls, stored: Mapping[str, Any]) -> Mapping[str, Any]:
        """Convert a handle of version 1: the agent is found by its mark, and swept with the default
        containment.
        """
        del stored
        return {"options": {}}


class LocalDriver(HostDriver[LocalOptions]):
    """Starts ``hostler-agent`` on the hub's own machine."""

    name: ClassVar[str] = "local"
    capabilities: ClassVar[Capabilities] = Capabilities(on_hub=True, create_deadline_s=20.0)
    options_model = LocalOptions
    handle_model = LocalHandle
    query_deadline_s = 9.0

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self._directory = environment.directory
        self._threads: ThreadPoolExecutor | None = None
        self._children = Children()

    async def create(self, spec: InstanceSpec) -> Mapping[str, Any]:
        """Start an agent, or find the one that an earlier call has started."""
        if (self._directory / spec.worker / spec.instance).exists():  # see _former_directories
            ref = InstanceRef(spec.worker, spec.instance, spec.epoch, None, spec.options)
            seen = await self.inspect(ref)
            if seen.presence is Presence.RUNNING and seen.handle is not None:
                return seen.handle
        return await super().create(spec)

    async def inspect(self, ref: InstanceRef) -> Inspection:
        """Inspect the instance. The evidence for one that is gone includes the log in its former
        directory.
        """
        seen = await super().inspect(ref)
        if seen.presence is Presence.GONE:
            for directory in self._former_directories(ref.instance):
                words = await asyncio.to_thread(tail, directory / LOG)
                return Inspection(Presence.GONE, f"{seen.evidence}{words}")
        return seen

    async def destroy(self, ref: InstanceRef) -> None:
        """End the instance, and remove also its former directories."""
        await super().destroy(ref)
        for directory in self._former_directories(ref.instance):
            await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)

    async def list_owned(self, places: Sequence[Mapping[str, Any]]) -> Sequence[Owned]:
        """List every instance on this machine, whether or not a worker that runs here is
        defined.
        """
        del places
        return await super().list_owned([{}])

    async def aclose(self) -> None:
        """Stop the threads. Agents live in sessions of their own and outlive the hub."""
        self._children.close()
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=False, cancel_futures=True)

    async def _host(self, options: LocalOptions, site: Site, *, wake: bool = False) -> LocalHost:
        del options, wake
        if self._threads is None:
            self._make_private()
            self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="local")
        here = Site(str(self._directory), site.python)  # wherever the hub's state has moved
        return LocalHost(here, self._threads, self._children)

    def _hub_url(self, options: LocalOptions) -> str:
        """The hub's URL for agents. With TLS they connect to the hub's socket, because no
        certificate names the loopback address.
        """
        del options
        url = self._environment.connect_url
        return url if self._socket is None else f"ws://localhost{urlsplit(url).path}"

    def _agent_config(self, options: LocalOptions) -> dict[str, Any]:
        socket = {} if self._socket is None else {"hub_socket": str(self._socket)}
        return {**options.agent_config(), **socket}

    def _present_options(self, ref: InstanceRef) -> LocalOptions:
        """The options of the worker's definition, or else the defaults, which are enough to find an
        instance here.
        """
        return super()._present_options(ref) or LocalOptions()

    @property
    def _socket(self) -> Path | None:
        environment = self._environment
        return environment.hub_socket if environment.connect_url.startswith("wss:") else None

    def _make_private(self) -> None:
        """Make the driver's directory writable for its owner only. Hubs before handles of version 2
        left that to the umask.
        """
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._directory.chmod(0o700)
        except OSError as error:
            text = f"cannot make the directory {self._directory}: {error.strerror}"
            raise HostFailed(text, ran=False) from error

    def _former_directories(self, instance: str) -> list[Path]:
        """The directories that hubs before handles of version 2 made for the instance:
        WORKER/INSTANCE.
        """
        former = self._directory.glob(f"*/{instance}")
        return [path for path in former if path.parent.name != "instances"]
