"""Driver ``ssh``: agents on machines with a POSIX shell and Python, by the agent's own `host` verb.

The mark stands in the agent's arguments, the token in a file that arrives over standard input. A
machine that cannot be reached is never taken for one that has no instance: until it answers, its
instances are unknown. The one exception is what was never sent, which this driver knows itself.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from pydantic import ValidationError

from hostler_agent.host import errors as host_errors
from hostler_hub.drivers.contract import (
    Capabilities,
    DriverError,
    Environment,
    Inspection,
    InstanceRef,
    InstanceSpec,
    OptionsRefused,
    Owned,
    ProviderFailed,
)
from hostler_hub.drivers.posix_host import HostFailed, PosixHost, Site
from hostler_hub.drivers.ssh_options import SshOptions
from hostler_hub.drivers.ssh_reach import agent_url, port_of_url
from hostler_hub.lifecycle.model import Presence
from hostler_hub.transports.contract import Transport, TransportError

if TYPE_CHECKING:
    from hostler_hub.drivers.ssh_machines import Machines

HANDLE_VERSION = 1
START_DEADLINE_S = 60.0
LOOK_DEADLINE_S = 12.0
END_DEADLINE_S = 90.0

_HINTS = {
    host_errors.DISK_FULL: "; free some space there, or set option 'directory'",
    host_errors.NOT_PERMITTED: "; see the options user and directory",
}


class SshDriver:
    """Starts agents on other machines, several on one where workers say so."""

    name: ClassVar[str] = "ssh"
    capabilities: ClassVar[Capabilities] = Capabilities(
        create_deadline_s=300.0, inspect_deadline_s=15.0, destroy_deadline_s=120.0
    )
    options_model: ClassVar[type[SshOptions]] = SshOptions

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._machines: Machines | None = None
        # Instances of which nothing has been sent: there is nothing to end, also where nobody
        # answers. A new process does not know, and asks the machine.
        self._unsent: set[str] = set()

    async def create(self, spec: InstanceSpec) -> Mapping[str, Any]:
        options = SshOptions.model_validate(dict(spec.options))
        self._unsent.add(spec.instance)
        url = agent_url(options, self._environment)
        with _told(options):
            machines = await self._reach()
            transport = await machines.awake(options)
            if options.tunnel:
                port = await machines.tunnels.ensure(transport, spec.instance, None)
                url = f"ws://127.0.0.1:{port}{urlsplit(url).path}"
            reply = await self._start(self._host(transport, options.site), spec, options, url)
        return _handle(options, reply)

    async def inspect(self, ref: InstanceRef) -> Inspection:
        if ref.instance in self._unsent:
            return Inspection(Presence.GONE, "ssh: nothing was sent to the machine")
        options, site = _where(ref)
        with _told(options):
            machines = await self._reach()
            transport = machines.transport(options)
            port = (ref.handle or {}).get("port")
            if port is not None:
                await machines.tunnels.ensure(transport, ref.instance, port)
            reply = await self._look("inspect", ref.instance, self._host(transport, site))
        words = str(reply.get("words", ""))
        if reply["state"] == "running":
            return Inspection(Presence.RUNNING, words, _handle(options, reply))
        if reply["state"] == "gone":
            return Inspection(Presence.GONE, f"no such process; agent's last words: {words}")
        return Inspection(Presence.UNKNOWN, words)

    async def destroy(self, ref: InstanceRef) -> None:
        """SIGQUIT, SIGKILL, whatever their jobs left, the directory; gone when the machine says."""
        if ref.instance not in self._unsent:
            options, site = _where(ref)
            with _told(options):
                transport = (await self._reach()).transport(options)
                await self._end(ref.instance, options, self._host(transport, site))
        if self._machines is not None:
            await self._machines.tunnels.release(ref.instance)
        self._unsent.discard(ref.instance)

    async def list_owned(self, places: Sequence[Mapping[str, Any]]) -> Sequence[Owned]:
        asked = {}
        for each in places:
            options = SshOptions.model_validate(dict(each))
            asked[options.access, options.site] = options
        lists = await asyncio.gather(*(self._list(options) for options in asked.values()))
        # Two accesses may lead to one machine, whose processes both see.
        found = {owned.instance: owned for listed in lists for owned in listed}
        return list(found.values())

    async def evidence(self, ref: InstanceRef) -> Mapping[str, str]:
        """The agent's log and the machine's processes."""
        if ref.instance in self._unsent:
            return {}
        options, site = _where(ref)
        with _told(options):
            host = self._host((await self._reach()).transport(options), site)
            reply = await self._look("evidence", ref.instance, host)
        return {str(name): str(text) for name, text in reply.get("texts", {}).items()}

    async def aclose(self) -> None:
        machines, self._machines = self._machines, None
        if machines is not None:
            await machines.aclose()

    # --- the machine's side ---------------------------------------------------------------------

    async def _reach(self) -> Machines:
        if self._machines is None:
            name = "hostler_hub.drivers.ssh_machines"
            module = await asyncio.to_thread(importlib.import_module, name)
            if self._machines is None:  # nobody else has been quicker
                self._machines = module.Machines(self._environment)
        return self._machines

    def _host(self, transport: Transport, site: Site) -> PosixHost:
        if self._environment.archive is None:
            raise OptionsRefused("ssh: this hub has no archive of the agent")
        return PosixHost(transport, site, self._environment.archive)

    async def _start(
        self, host: PosixHost, spec: InstanceSpec, options: SshOptions, url: str
    ) -> Mapping[str, Any]:
        request = {**self._order(spec, options, url), "token": spec.token}
        forget = self._unsent.discard  # in a thread, at the last moment before it is not true
        try:
            return await host.call(
                "start", request, START_DEADLINE_S, sending=lambda: forget(spec.instance)
            )
        except HostFailed as error:
            if not error.ran:
                self._unsent.add(spec.instance)
            raise

    def _order(self, spec: InstanceSpec, options: SshOptions, url: str) -> dict[str, Any]:
        ca_file = self._environment.ca_file
        return {
            "hub": self._environment.hub,
            "instance": spec.instance,
            "epoch": spec.epoch,
            "environment": dict(options.environment),
            "ca": ca_file.read_text() if ca_file and url.startswith("wss:") else None,
            "config": {
                "hub": url,
                "name": spec.worker,
                "instance": spec.instance,
                "epoch": spec.epoch,
                "containment": options.containment,
            },
        }

    async def _look(self, action: str, instance: str, host: PosixHost) -> Mapping[str, Any]:
        request = {"hub": self._environment.hub, "instance": instance}
        return await host.call(action, request, LOOK_DEADLINE_S)

    async def _end(self, instance: str, options: SshOptions, host: PosixHost) -> None:
        if await host.end(instance, LOOK_DEADLINE_S):
            return
        request = {
            "hub": self._environment.hub,
            "instance": instance,
            "containment": options.containment,
        }
        await host.call("stop", request, END_DEADLINE_S)

    async def _list(self, options: SshOptions) -> list[Owned]:
        with _told(options):
            host = self._host((await self._reach()).transport(options), options.site)
            reply = await host.call("list", {"hub": self._environment.hub}, LOOK_DEADLINE_S)
        return [_owned(options, each) for each in reply["instances"]]


@contextmanager
def _told(options: SshOptions) -> Iterator[None]:
    """What went wrong below, as the contract's errors; they all name the driver."""
    try:
        yield
    except TransportError as error:
        raise ProviderFailed(f"ssh: {error}") from error
    except HostFailed as error:
        address = options.access.target.address
        raise ProviderFailed(f"ssh: {address}: {error}{_HINTS.get(error.kind, '')}") from error


def _where(ref: InstanceRef) -> tuple[SshOptions, Site]:
    """How to reach the instance: as the definition says now, but as the user who started it, and
    in the directory that it was started in. A handle alone is enough.
    """
    handle = ref.handle or {}
    try:
        started = SshOptions.model_validate(handle["options"]) if handle else None
        present = SshOptions.model_validate(dict(ref.options)) if ref.options else started
    except (ValidationError, KeyError) as error:
        raise DriverError(f"ssh: instance {ref.instance}: {error}") from error
    if present is None:
        raise DriverError(f"ssh: instance {ref.instance}: neither options nor a handle")
    if started is not None and (started.user, started.place) != (present.user, present.place):
        present = started
    return present, Site(str(handle.get("directory", present.directory)), present.python)


def _handle(options: SshOptions, reply: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "version": HANDLE_VERSION,
        "options": options.lasting(),
        "directory": reply["directory"],
        "process": reply["process"],
        "port": port_of_url(reply.get("hub_url")) if options.tunnel else None,
    }


def _owned(options: SshOptions, listed: Mapping[str, Any]) -> Owned:
    process = listed["process"]
    what = f"process {process['pid']}" if process else "directory"
    return Owned(
        listed["instance"],
        listed["epoch"],
        _handle(options, listed),
        listed["worker"],
        f"{what} on {options.access.target.address}",
        listed["created_at"],
    )
