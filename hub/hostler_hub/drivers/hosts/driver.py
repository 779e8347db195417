"""Base of the drivers whose machines exist already: an instance is an agent process on a machine.

The mark is in the agent's arguments and in a file beside its configuration; the token is in a file
that arrives over standard input. A machine that cannot be reached is never taken for one without
instances: until it answers, its instances are unknown. The only exception is an instance whose
start request was never sent, which the driver knows itself.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Generic

from hostler_agent.instances import errors as host_errors
from hostler_hub.drivers.contract import (
    Environment,
    Inspection,
    InstanceRef,
    InstanceSpec,
    Owned,
)
from hostler_hub.drivers.errors import DriverError, HostFailed, ProviderFailed
from hostler_hub.drivers.hosts.host import Host, Site
from hostler_hub.drivers.hosts.options import HostHandle, Options
from hostler_hub.drivers.transports.errors import TransportError
from hostler_hub.lifecycle.model import Presence

START_DEADLINE_S = 60.0
END_DEADLINE_S = 90.0

_HINTS = {
    host_errors.DISK_FULL: "; free some space there, or set option 'directory'",
    host_errors.NOT_PERMITTED: "; see the options user and directory",
}


class HostDriver(ABC, Generic[Options]):
    """Starts agents on machines; several workers may share one machine."""

    name: ClassVar[str]
    options_model: type[Options]
    handle_model: type[HostHandle[Options]]
    query_deadline_s: ClassVar[float] = 12.0
    """The deadline of requests that change nothing on the machine, in seconds."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        # Instances whose start was never sent: there is nothing to end, even if the machine does
        # not answer. A restarted hub has no such knowledge, and asks the machine.
        self._unsent: set[str] = set()

    async def create(self, spec: InstanceSpec) -> Mapping[str, Any]:
        """Start an agent on the machine that the options name; wake the machine if it sleeps."""
        options = self.options_model.of(spec.options)
        self._unsent.add(spec.instance)
        url = self._hub_url(options)
        with self._translate_errors(options):
            host = await self._host(options, options.site, wake=True)
            url = await self._open_route(options, spec.instance, url)
            reply = await self._start(host, spec, options, url)
        return self._handle(options, reply).dump()

    async def inspect(self, ref: InstanceRef) -> Inspection:
        """Ask the machine for the instance's process."""
        if ref.instance in self._unsent:
            return Inspection(Presence.GONE, f"{self.name}: nothing was sent to the machine")
        handle = self._handle_of(ref)
        options, site = self._located(ref, handle)
        with self._translate_errors(options):
            await self._restore_route(options, ref.instance, handle)
            host = await self._host(options, site)
            reply = await self._query("inspect", ref.instance, host)
        words = str(reply.get("words", ""))
        if reply["state"] == "running":
            return Inspection(Presence.RUNNING, words, self._handle(options, reply).dump())
        if reply["state"] == "gone":
            return Inspection(Presence.GONE, f"no such process; agent's last words: {words}")
        return Inspection(Presence.UNKNOWN, words)

    async def destroy(self, ref: InstanceRef) -> None:
        """End the agent and whatever its jobs left behind, and remove the instance's directory.

        Returns when the machine has confirmed all of that.
        """
        if ref.instance not in self._unsent:
            options, site = self._located(ref, self._handle_of(ref))
            with self._translate_errors(options):
                await self._end(ref.instance, options, await self._host(options, site))
        await self._close_route(ref.instance)
        self._unsent.discard(ref.instance)

    async def list_owned(self, places: Sequence[Mapping[str, Any]]) -> Sequence[Owned]:
        """List the instances of every machine in `places`. A machine is asked once for each way to
        reach it.
        """
        machines = {}
        for each in places:
            options = self.options_model.of(each)
            machines[options.access, options.site] = options
        lists = await asyncio.gather(*(self._list(options) for options in machines.values()))
        # Two ways may lead to one machine, which tells of its processes by both.
        found = {owned.instance: owned for listed in lists for owned in listed}
        return list(found.values())

    async def evidence(self, ref: InstanceRef) -> Mapping[str, str]:
        """The agent's log, and what the machine reports on its state."""
        if ref.instance in self._unsent:
            return {}
        options, site = self._located(ref, self._handle_of(ref))
        with self._translate_errors(options):
            reply = await self._query("evidence", ref.instance, await self._host(options, site))
        return {str(name): str(text) for name, text in reply.get("texts", {}).items()}

    @abstractmethod
    async def aclose(self) -> None:
        """Close the driver's connections; instances keep running."""

    # --- what each driver does in its own way ---------------------------------------------------

    @abstractmethod
    async def _host(self, options: Options, site: Site, *, wake: bool = False) -> Host:
        """The machine that the options name. With `wake` it has answered, or DriverError or
        TransportError is raised; without `wake`, a machine that cannot be reached shows at its
        first call.
        """

    @abstractmethod
    def _hub_url(self, options: Options) -> str:
        """The URL that the agent connects to. Raises OptionsRefused if the agent could
        not connect.
        """

    async def _open_route(self, options: Options, instance: str, url: str) -> str:
        """Open a route to the hub for an agent that is about to start; return the URL it
        must use.
        """
        del options, instance
        return url

    async def _restore_route(
        self, options: Options, instance: str, handle: HostHandle[Options] | None
    ) -> None:
        """Reopen the route to the hub that the agent was started with, if it is closed."""

    async def _close_route(self, instance: str) -> None:
        """Close the route to the hub of an instance that is gone."""

    def _agent_config(self, options: Options) -> dict[str, Any]:
        """The keys of the agent's configuration beyond hub, names and epoch."""
        return options.agent_config()

    def _handle(self, options: Options, reply: Mapping[str, Any]) -> HostHandle[Options]:
        """Build the instance's handle from the machine's reply."""
        return self.handle_model(
            options=options, directory=reply["directory"], process=reply["process"]
        )

    # --- requests to the machine ----------------------------------------------------------------

    async def _start(
        self, host: Host, spec: InstanceSpec, options: Options, url: str
    ) -> Mapping[str, Any]:
        request = {**self._start_request(spec, options, url), "token": spec.token}
        forget = self._unsent.discard  # called in a thread, just before the start is sent
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

    def _start_request(self, spec: InstanceSpec, options: Options, url: str) -> dict[str, Any]:
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
                **spec.agent_config,
                **self._agent_config(options),
            },
            **options.start_request(),
        }

    async def _query(self, action: str, instance: str, host: Host) -> Mapping[str, Any]:
        request = {"hub": self._environment.hub, "instance": instance}
        return await host.call(action, request, self.query_deadline_s)

    async def _end(self, instance: str, options: Options, host: Host) -> None:
        if await host.end_unstarted(instance, self.query_deadline_s):
            return
        request = {
            "hub": self._environment.hub,
            "instance": instance,
            "containment": options.containment,
        }
        try:
            await host.call("stop", request, END_DEADLINE_S)
        except HostFailed as error:
            if not await host.never_was(instance, error, self.query_deadline_s):
                raise

    async def _list(self, options: Options) -> list[Owned]:
        with self._translate_errors(options):
            host = await self._host(options, options.site)
            reply = await host.call("list", {"hub": self._environment.hub}, self.query_deadline_s)
        return [self._owned(options, each) for each in reply["instances"]]

    # --- errors and handles ---------------------------------------------------------------------

    @contextmanager
    def _translate_errors(self, options: Options) -> Iterator[None]:
        """Translate HostFailed and TransportError into ProviderFailed, with the driver's name."""
        try:
            yield
        except TransportError as error:
            raise ProviderFailed(f"{self.name}: {error}") from error
        except HostFailed as error:
            hint = _HINTS.get(error.kind, "")
            raise ProviderFailed(f"{self.name}: {options.address}: {error}{hint}") from error

    def _handle_of(self, ref: InstanceRef) -> HostHandle[Options] | None:
        """Parse the instance's handle; None if it has none. Raises HandleRefused."""
        return self.handle_model.parse(ref.handle, ref.instance) if ref.handle else None

    def _located(
        self, ref: InstanceRef, handle: HostHandle[Options] | None
    ) -> tuple[Options, Site]:
        """The options and the site by which to reach the instance. They are the current
        definition's if that names the same place and user, otherwise those that the instance was
        started with; the directory is the one it was started in. A handle alone is enough. Raises
        DriverError with neither.
        """
        started = handle.options if handle else None
        present = self._present_options(ref) or started
        if present is None:
            text = f"{self.name}: instance {ref.instance}: neither options nor a handle"
            raise DriverError(text)
        if started is not None and (started.owner, started.place) != (present.owner, present.place):
            present = started
        site = present.site
        directory = handle.directory if handle else None
        return present, Site(directory or site.directory, site.python)

    def _present_options(self, ref: InstanceRef) -> Options | None:
        """The options of the worker's definition; None if there is none. Raises DriverError if
        invalid.
        """
        try:
            return self.options_model.of(ref.options) if ref.options else None
        except ValueError as error:
            raise DriverError(f"{self.name}: instance {ref.instance}: {error}") from error

    def _owned(self, options: Options, listed: Mapping[str, Any]) -> Owned:
        process = listed["process"]
        what = f"process {process['pid']}" if process else "directory"
        return Owned(
            listed["instance"],
            listed["epoch"],
            self._handle(options, listed).dump(),
            listed["worker"],
            f"{what} on {options.address}",
            listed["created_at"],
        )
