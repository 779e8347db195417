"""Drivers whose machines are there already, and dealt with by the agent's own `host` verb.

The mark stands in the agent's arguments and beside its configuration, the token in a file that
arrives over standard input. A machine that cannot be reached is never taken for one that has no
instance: until it answers, its instances are unknown. The one exception is what was never sent,
which a driver knows itself.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import ValidationError

from hostler_agent.instances import errors as host_errors
from hostler_hub.drivers.contract import (
    DriverError,
    DriverOptions,
    Environment,
    Inspection,
    InstanceRef,
    InstanceSpec,
    OptionsRefused,
    Owned,
    ProviderFailed,
)
from hostler_hub.drivers.hosts.remote import HostFailed, RemoteHost, Site
from hostler_hub.drivers.transports.contract import Transport, TransportError
from hostler_hub.lifecycle.model import Presence

HANDLE_VERSION = 1
START_DEADLINE_S = 60.0
END_DEADLINE_S = 90.0

_HINTS = {
    host_errors.DISK_FULL: "; free some space there, or set option 'directory'",
    host_errors.NOT_PERMITTED: "; see the options user and directory",
}


class HostOptions(DriverOptions):
    """What such a driver's options have in common."""

    host: str
    user: str | None = None
    python: str
    directory: str
    environment: Mapping[str, str] = {}
    containment: str = "auto"  # how the agent's jobs are held together

    @property
    def address(self) -> str:
        """Of the machine, for people."""
        raise NotImplementedError

    @property
    def access(self) -> Hashable:
        """How it is reached: what is equal shares a connection."""
        raise NotImplementedError

    @property
    def site(self) -> Site:
        """Where agents live on it."""
        return Site(self.directory, self.python)

    def lasting(self) -> dict[str, Any]:
        """What a handle keeps of them: all that it takes to find and to end an instance when the
        definition is gone; references to secrets, and no secret."""
        raise NotImplementedError

    def told(self) -> dict[str, Any]:
        """What of them the agent's own configuration has."""
        return {}

    def asked(self) -> dict[str, Any]:
        """What of them a start's request has."""
        return {}


Options = TypeVar("Options", bound=HostOptions)


class HostDriver(Generic[Options]):
    """Starts agents on other machines, several on one where workers say so."""

    name: ClassVar[str]
    options_model: type[Options]
    machines_module: ClassVar[str]
    """Imported with the first instance, for it takes memory and time. Has a class `Machines`, made
    of the environment: `transport(options)` is one for each machine and user, however many workers
    are there; `await awake(options)` the same to a machine that answers; `await aclose()`."""
    host_class: ClassVar[type[RemoteHost]]
    look_deadline_s: ClassVar[float] = 12.0

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._machines: Any = None
        # Instances of which nothing has been sent: there is nothing to end, also where nobody
        # answers. A new process does not know, and asks the machine.
        self._unsent: set[str] = set()

    async def create(self, spec: InstanceSpec) -> Mapping[str, Any]:
        options = self.options_model.model_validate(dict(spec.options))
        self._unsent.add(spec.instance)
        url = self._url(options)
        with self._told(options):
            transport = await (await self._reach()).awake(options)
            url = await self._lead(options, transport, spec.instance, url)
            reply = await self._start(self._host(transport, options.site), spec, options, url)
        return self._handle(options, reply)

    async def inspect(self, ref: InstanceRef) -> Inspection:
        if ref.instance in self._unsent:
            return Inspection(Presence.GONE, f"{self.name}: nothing was sent to the machine")
        options, site = self._where(ref)
        with self._told(options):
            transport = (await self._reach()).transport(options)
            await self._follow(ref, transport)
            reply = await self._look("inspect", ref.instance, self._host(transport, site))
        words = str(reply.get("words", ""))
        if reply["state"] == "running":
            return Inspection(Presence.RUNNING, words, self._handle(options, reply))
        if reply["state"] == "gone":
            return Inspection(Presence.GONE, f"no such process; agent's last words: {words}")
        return Inspection(Presence.UNKNOWN, words)

    async def destroy(self, ref: InstanceRef) -> None:
        """The agent, whatever its jobs left, the directory; gone when the machine says."""
        if ref.instance not in self._unsent:
            options, site = self._where(ref)
            with self._told(options):
                transport = (await self._reach()).transport(options)
                await self._end(ref.instance, options, self._host(transport, site))
        await self._release(ref.instance)
        self._unsent.discard(ref.instance)

    async def list_owned(self, places: Sequence[Mapping[str, Any]]) -> Sequence[Owned]:
        asked = {}
        for each in places:
            options = self.options_model.model_validate(dict(each))
            asked[options.access, options.site] = options
        lists = await asyncio.gather(*(self._list(options) for options in asked.values()))
        # Two accesses may lead to one machine, whose processes both see.
        found = {owned.instance: owned for listed in lists for owned in listed}
        return list(found.values())

    async def evidence(self, ref: InstanceRef) -> Mapping[str, str]:
        """The agent's log and what the machine says of itself."""
        if ref.instance in self._unsent:
            return {}
        options, site = self._where(ref)
        with self._told(options):
            host = self._host((await self._reach()).transport(options), site)
            reply = await self._look("evidence", ref.instance, host)
        return {str(name): str(text) for name, text in reply.get("texts", {}).items()}

    async def aclose(self) -> None:
        machines, self._machines = self._machines, None
        if machines is not None:
            await machines.aclose()

    # --- what a driver may do in its own way ----------------------------------------------------

    def _url(self, options: Options) -> str:
        """Where the agent is to connect. Raises OptionsRefused."""
        raise NotImplementedError

    async def _lead(self, options: Options, transport: Any, instance: str, url: str) -> str:
        """A way of the driver's own for the agent to the hub, before it is started."""
        del options, transport, instance
        return url

    async def _follow(self, ref: InstanceRef, transport: Any) -> None:
        """The same for an agent that is there."""

    async def _release(self, instance: str) -> None:
        """The instance is gone."""

    def _traits(self, options: Options, reply: Mapping[str, Any]) -> dict[str, Any]:
        """What its handles have beyond all others'."""
        del options, reply
        return {}

    # --- the machine's side ---------------------------------------------------------------------

    async def _reach(self) -> Any:
        """The driver's machines."""
        if self._machines is None:
            module = await asyncio.to_thread(importlib.import_module, self.machines_module)
            if self._machines is None:  # nobody else has been quicker
                self._machines = module.Machines(self._environment)
        return self._machines

    def _host(self, transport: Transport, site: Site) -> RemoteHost:
        if self._environment.archive is None:
            raise OptionsRefused(f"{self.name}: this hub has no archive of the agent")
        return self.host_class(transport, site, self._environment.archive)

    async def _start(
        self, host: RemoteHost, spec: InstanceSpec, options: Options, url: str
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
        except TransportError as error:
            if not error.sent:
                self._unsent.add(spec.instance)
            raise

    def _order(self, spec: InstanceSpec, options: Options, url: str) -> dict[str, Any]:
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
                **options.told(),
            },
            **options.asked(),
        }

    async def _look(self, action: str, instance: str, host: RemoteHost) -> Mapping[str, Any]:
        request = {"hub": self._environment.hub, "instance": instance}
        return await host.call(action, request, self.look_deadline_s)

    async def _end(self, instance: str, options: Options, host: RemoteHost) -> None:
        if await host.end(instance, self.look_deadline_s):
            return
        request = {
            "hub": self._environment.hub,
            "instance": instance,
            "containment": options.containment,
        }
        try:
            await host.call("stop", request, END_DEADLINE_S)
        except HostFailed as error:
            if not await host.never_was(instance, error, self.look_deadline_s):
                raise

    async def _list(self, options: Options) -> list[Owned]:
        with self._told(options):
            host = self._host((await self._reach()).transport(options), options.site)
            reply = await host.call("list", {"hub": self._environment.hub}, self.look_deadline_s)
        return [self._owned(options, each) for each in reply["instances"]]

    # --- words and handles ----------------------------------------------------------------------

    @contextmanager
    def _told(self, options: Options) -> Iterator[None]:
        """What went wrong below, as the contract's errors; they all name the driver."""
        try:
            yield
        except TransportError as error:
            raise ProviderFailed(f"{self.name}: {error}") from error
        except HostFailed as error:
            hint = _HINTS.get(error.kind, "")
            raise ProviderFailed(f"{self.name}: {options.address}: {error}{hint}") from error

    def _where(self, ref: InstanceRef) -> tuple[Options, Site]:
        """How to reach the instance: as the definition says now, but as the user who started it,
        and in the directory that it was started in. A handle alone is enough.
        """
        handle, validate = ref.handle or {}, self.options_model.model_validate
        try:
            started = validate(handle["options"]) if handle else None
            present = validate(dict(ref.options)) if ref.options else started
        except (ValidationError, KeyError) as error:
            raise DriverError(f"{self.name}: instance {ref.instance}: {error}") from error
        if present is None:
            text = f"{self.name}: instance {ref.instance}: neither options nor a handle"
            raise DriverError(text)
        if started is not None and (started.user, started.place) != (present.user, present.place):
            present = started
        return present, Site(str(handle.get("directory", present.directory)), present.python)

    def _handle(self, options: Options, reply: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "version": HANDLE_VERSION,
            "options": options.lasting(),
            "directory": reply["directory"],
            "process": reply["process"],
            **self._traits(options, reply),
        }

    def _owned(self, options: Options, listed: Mapping[str, Any]) -> Owned:
        process = listed["process"]
        what = f"process {process['pid']}" if process else "directory"
        return Owned(
            listed["instance"],
            listed["epoch"],
            self._handle(options, listed),
            listed["worker"],
            f"{what} on {options.address}",
            listed["created_at"],
        )
