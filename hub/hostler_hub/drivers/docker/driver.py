"""`DockerDriver`: implements the driver contract by calls to Docker daemons."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import ValidationError

from hostler_hub.drivers import listing
from hostler_hub.drivers.contract import (
    Capabilities,
    DriverOptions,
    Environment,
    Inspection,
    InstanceRef,
    InstanceSpec,
    Owned,
)
from hostler_hub.drivers.docker import containers, hub_route, payload, privileges, status
from hostler_hub.drivers.docker import plan as plans
from hostler_hub.drivers.docker.daemon import Daemon, Endpoint
from hostler_hub.drivers.docker.errors import Conflict, NoAnswer, NotThere
from hostler_hub.drivers.docker.handle import DockerHandle
from hostler_hub.drivers.docker.images import Images
from hostler_hub.drivers.docker.options import DockerOptions
from hostler_hub.drivers.errors import DriverError, OptionsRefused, ProviderFailed
from hostler_hub.drivers.sent import SentRequests
from hostler_hub.lifecycle.model import Presence
from hostler_hub.runtime.errors import SecretRefused

if TYPE_CHECKING:
    from docker import APIClient

# A create that was not answered may still be under way in a daemon that answers again.
SECOND_LOOK_S = 1.0
START_S = 120.0
REMOVAL_S = 30
GRACE_S = 10.0


class DockerDriver:
    """Starts containers that run an agent."""

    name: ClassVar[str] = "docker"
    # A create may pull or build; those have deadlines of their own, of at most an hour.
    capabilities: ClassVar[Capabilities] = Capabilities(
        create_deadline_s=2 * 3600.0, inspect_deadline_s=10.0, destroy_deadline_s=180.0
    )
    options_model: ClassVar[type[DriverOptions]] = DockerOptions

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._images = Images(environment.directory / "contexts", environment.secrets)
        self._daemons: dict[Endpoint, Daemon] = {}
        self._unanswered: set[str] = set()
        # Of what was not sent there is nothing to end, also where nobody answers.
        self._sent = SentRequests(self.name, environment.directory / "sent")

    async def create(self, spec: InstanceSpec) -> Mapping[str, Any]:
        options = DockerOptions.of(spec.options)
        self._sent.begin(spec.instance)
        privileges.check(options, self._environment.allowed_privileges)
        route = hub_route.choose(options, self._environment)
        files = self._files(spec, options, route)
        daemon = self._daemon(Endpoint.of(options))
        image = await self._images.ensure(daemon, options)
        plan = plans.container(self._environment.hub, spec, options, image.name, route)
        container = await self._made(daemon, spec.instance, plan)
        seen = await daemon.ask(lambda client: client.inspect_container(container))
        if seen["State"]["Status"] == "created":
            user = options.user or image.user
            await daemon.ask(
                lambda client: containers.start(client, seen, plan, files, user), START_S
            )
        return status.handle(daemon.endpoint, seen).dump()

    async def inspect(self, ref: InstanceRef) -> Inspection:
        if self._was_never_sent(ref):
            return Inspection(Presence.GONE, "docker: nothing was sent to a daemon")
        handle = _handle_of(ref)
        daemon = self._daemon_of(ref, handle)
        try:
            return await daemon.ask(
                lambda client: self._inspect(client, daemon.endpoint, ref.instance, handle)
            )
        except NotThere:
            return Inspection(Presence.GONE, "docker: the container is not there any more")

    async def destroy(self, ref: InstanceRef) -> None:
        """Stop the container by SIGQUIT, by SIGKILL after ``stop_timeout_s``, and remove it."""
        if self._was_never_sent(ref):
            self._sent.forget(ref.instance)
            return
        handle = _handle_of(ref)
        daemon = self._daemon_of(ref, handle)
        hub, instance = self._environment.hub, ref.instance
        found = await daemon.ask(lambda client: containers.own(client, hub, instance, handle))
        if not found and instance in self._unanswered:
            await asyncio.sleep(SECOND_LOOK_S)
            found = await daemon.ask(lambda client: containers.own(client, hub, instance, handle))
        options = _options_of(ref)
        grace_s = GRACE_S if options is None else options.stop_timeout_s
        for container in found:
            await self._end(daemon, container, grace_s)
        await daemon.ask(lambda client: containers.remove_volumes(client, hub, instance, handle))
        self._unanswered.discard(instance)
        self._sent.forget(instance)

    async def list_owned(self, places: Sequence[Mapping[str, Any]]) -> Sequence[Owned]:
        options, unread = listing.read(self.name, DockerOptions, places)
        endpoints = {Endpoint.of(each) for each in options}
        asked = [
            listing.Place(each.docker_host, each.docker_host, partial(self._owned_at, each))
            for each in endpoints
        ]
        return await listing.at_each(self.name, asked, unread)

    async def evidence(self, ref: InstanceRef) -> Mapping[str, str]:
        """The container's log, state and processes."""
        if self._was_never_sent(ref):
            return {}
        hub, handle = self._environment.hub, _handle_of(ref)

        def collect(client: APIClient) -> dict[str, str]:
            found = containers.find(client, hub, ref.instance, handle)
            return {} if found is None else status.evidence(client, found)

        return await self._daemon_of(ref, handle).ask(collect)

    async def aclose(self) -> None:
        """Close the connections; containers outlive the hub."""
        for daemon in self._daemons.values():
            daemon.close()
        self._daemons.clear()

    # --- calls to a daemon ----------------------------------------------------------------------

    def _was_never_sent(self, ref: InstanceRef) -> bool:
        return ref.handle is None and self._sent.never(ref.instance)

    def _files(
        self, spec: InstanceSpec, options: DockerOptions, route: hub_route.HubRoute
    ) -> list[payload.File]:
        authorities = None if route.socket is not None else self._authorities(options)
        files = payload.agent_files(spec, options, route, authorities)
        if options.command is None:
            files.append(payload.File(payload.ARCHIVE, self._archive(), 0o644))
        return files

    def _authorities(self, options: DockerOptions) -> str | None:
        """The certificate authorities (PEM) that the agent trusts for wss://. None: those of the
        image.
        """
        if options.hub_ca is None:
            known = self._environment.ca_file
            return None if known is None else known.read_text()
        try:
            return self._environment.secrets.resolve(options.hub_ca)
        except SecretRefused as error:
            raise OptionsRefused(f"docker: driver_options.hub_ca: {error}") from error

    def _archive(self) -> bytes:
        archive = self._environment.archive
        if archive is None:
            raise ProviderFailed("docker: this hub has no agent to send (agent.pyz)")
        return archive.path.read_bytes()

    async def _made(self, daemon: Daemon, instance: str, plan: plans.Plan) -> str:
        """Make the container, or find the one that an earlier call made; return its id."""
        await asyncio.to_thread(self._sent.note, instance)
        self._unanswered.add(instance)  # until we know better, also when we are cancelled
        try:
            made = await daemon.ask(lambda client: containers.make(client, plan))
        except Conflict:
            made = await daemon.ask(lambda client: containers.adopt(client, plan))
        except NoAnswer:
            raise
        except (ProviderFailed, OptionsRefused):
            self._unanswered.discard(instance)
            raise
        self._unanswered.discard(instance)
        return made

    def _inspect(
        self, client: APIClient, endpoint: Endpoint, instance: str, handle: DockerHandle | None
    ) -> Inspection:
        found = containers.find(client, self._environment.hub, instance, handle)
        if found is None:
            return Inspection(Presence.GONE, "docker: no container carries the mark")
        seen = client.inspect_container(found)
        presence, words = status.presence(seen), status.describe(seen)
        if presence is Presence.GONE:
            words += f"; its last words: {status.last_words(client, found) or 'none'}"
        return Inspection(presence, f"docker: {words}", status.handle(endpoint, seen).dump())

    async def _end(self, daemon: Daemon, container: str, grace_s: float) -> None:
        """End a container. It counts as gone when the daemon says that it has no such container
        (V3).
        """
        whole_s = max(1, round(grace_s))
        deadline_s = whole_s + 2 * REMOVAL_S
        await daemon.ask(lambda client: containers.end(client, container, whole_s), deadline_s)
        try:
            await daemon.ask(lambda client: client.inspect_container(container))
            await daemon.ask(
                lambda client: containers.await_removal(client, container, REMOVAL_S), REMOVAL_S
            )
            seen = await daemon.ask(lambda client: client.inspect_container(container))
        except NotThere:
            return
        state = seen["State"]["Status"]
        raise ProviderFailed(f"docker: container {container[:12]} is still there, {state}")

    async def _owned_at(self, endpoint: Endpoint) -> Sequence[Owned]:
        hub = self._environment.hub
        return await self._daemon(endpoint).ask(
            lambda client: containers.owned(client, endpoint, hub)
        )

    def _daemon(self, endpoint: Endpoint) -> Daemon:
        if endpoint not in self._daemons:
            self._daemons[endpoint] = Daemon(endpoint, self._environment.secrets)
        return self._daemons[endpoint]

    def _daemon_of(self, ref: InstanceRef, handle: DockerHandle | None) -> Daemon:
        """The daemon that an instance is on: the one of its handle, with the certificates of the
        current options if they name the same daemon. Raises DriverError with neither handle nor
        valid options.
        """
        options = _options_of(ref)
        if handle is None:
            if options is None:
                text = f"docker: instance {ref.instance}: neither valid options nor a handle"
                raise DriverError(text)
            return self._daemon(Endpoint.of(options))
        if options is not None and options.tls and options.docker_host == handle.docker_host:
            return self._daemon(Endpoint.of(options))
        return self._daemon(Endpoint.of(handle))


def _handle_of(ref: InstanceRef) -> DockerHandle | None:
    """Parse the instance's handle; None if it has none. Raises HandleRefused."""
    return None if ref.handle is None else DockerHandle.parse(ref.handle, ref.instance)


def _options_of(ref: InstanceRef) -> DockerOptions | None:
    """The options of the worker's definition; None if there is none, or if they are no longer
    valid.
    """
    try:
        return DockerOptions.of(ref.options) if ref.options else None
    except ValidationError:
        return None
