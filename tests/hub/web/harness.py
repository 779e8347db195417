"""The API under test: the real application on a real hub, with the fake driver and virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import httpx2
from agent_peer import Peer
from fastapi import FastAPI

from hostler_agent.wire.extension import Handshake
from hostler_hub.app import Sources, running
from hostler_hub.drivers.contract import Driver, Environment, InstanceSpec
from hostler_hub.drivers.fake.driver import FakeDriver, FakeProvider
from hostler_hub.errors import NotFound
from hostler_hub.runtime.settings import Settings
from hostler_hub.runtime.tasks import Tasks
from hostler_hub.runtime.virtual_clock import VirtualClock
from hostler_hub.specs.caller import Role
from hostler_hub.web import application
from hostler_hub.web.hub import Hub

DEADLINE_S = 60.0


@dataclass
class Provider(FakeProvider):
    """The fake provider; `started` keeps what each worker's latest instance was started with."""

    started: dict[str, InstanceSpec] = field(default_factory=dict)


def driver_on(provider: Provider) -> type[FakeDriver]:
    """A class of the fake driver for one provider, since the hub makes drivers by class."""

    class ProvidedDriver(FakeDriver):
        def __init__(self, environment: Environment) -> None:
            super().__init__(environment, provider)

        async def create(self, spec: InstanceSpec) -> Mapping[str, Any]:
            provider.started[spec.worker] = spec
            return await super().create(spec)

    return ProvidedDriver


@dataclass(frozen=True)
class Site:
    """What outlives a hub: its settings, its database, the provider, and the time."""

    settings: Settings
    sources: Sources
    clock: VirtualClock = field(default_factory=VirtualClock)
    provider: Provider = field(default_factory=Provider)

    def drivers(self) -> Mapping[str, type[Driver]]:
        """The drivers of the hub's sources, and the fake one on this site's provider."""
        return {**self.sources.drivers(), "fake": driver_on(self.provider)}


@dataclass
class Api:
    """The application under test, its hub, and clients of any role."""

    app: FastAPI
    hub: Hub
    site: Site
    clients: dict[str, httpx2.AsyncClient] = field(default_factory=dict)
    agents: Tasks = field(default_factory=Tasks)
    _watcher: str = ""

    # --- clients ----------------------------------------------------------------------------------

    async def token(self, role: Role) -> str:
        name = f"a-{role}"
        if any(each["name"] == name for each in await self.hub.tokens.list()):
            await self.hub.tokens.delete(name)
        return await self.hub.tokens.create(name, role, by="test")

    def client(self, token: str | None = None) -> httpx2.AsyncClient:
        key = token or ""
        if key not in self.clients:
            headers = {} if token is None else {"Authorization": f"Bearer {token}"}
            transport = httpx2.ASGITransport(app=self.app, client=("192.0.2.7", 4711))
            self.clients[key] = httpx2.AsyncClient(
                transport=transport, base_url="http://hub.example", headers=headers
            )
        return self.clients[key]

    # --- workers ----------------------------------------------------------------------------------

    async def settle(self) -> None:
        """Wait until the hub has done all that was ordered of drivers and asked for by people."""
        assert await self.hub.leases.settle(DEADLINE_S)
        assert await self.hub.leases._controller.settle(DEADLINE_S)

    async def pass_time(self, seconds: float) -> None:
        """Let the clock run, and what it sets off come to rest."""
        await self.settle()
        self.site.clock.advance(seconds)
        await self.settle()

    async def attach(self, name: str, path: str = "/", **peer: Any) -> Peer:
        """Connect the agent of the worker's instance; returns when the worker is attached."""
        await self.settle()
        spec = self.site.provider.started[name]
        handshake = Handshake(name, spec.token, "s" * 43, spec.instance, spec.epoch)
        made = await self.come(handshake, path, **peer)
        assert made.status == 101
        await self.until(f"/workers/{name}", attached=True)
        return made

    async def come(self, handshake: Handshake, path: str = "/", **peer: Any) -> Peer:
        """Connect an agent; returns when it was told the hub's terms, or refused."""
        made = Peer(handshake, **peer)
        scope = {**made.websocket().scope, "path": path, "root_path": "", "query_string": b""}
        serving = self.app(scope, made.incoming.get, made.send)
        self.agents.spawn(serving, f"agent {handshake.name}")
        async with asyncio.timeout(DEADLINE_S):
            await made.settled.wait()
        return made

    async def until(self, path: str, **expected: Any) -> dict[str, Any]:
        """The worker or build at that path of the API, once these fields are as expected."""
        client = await self._watch()
        async with asyncio.timeout(DEADLINE_S):
            while True:
                view: dict[str, Any] = (await client.get(f"/api/v1{path}")).json()
                if {field: view[field] for field in expected} == expected:
                    return view
                await asyncio.sleep(0)  # a request that waits for nothing gives nobody a turn

    async def _watch(self) -> httpx2.AsyncClient:
        """A client with a token that no test asks for, and so none revokes."""
        if not self._watcher:
            with suppress(NotFound):  # an earlier hub's, on the same database
                await self.hub.tokens.delete("watcher")
            self._watcher = await self.hub.tokens.create("watcher", Role.VIEWER, by="test")
        return self.client(self._watcher)


@asynccontextmanager
async def api_on(site: Site) -> AsyncIterator[Api]:
    """A hub on the site's database, and the application around it, until the context ends."""
    sources = replace(site.sources, drivers=site.drivers)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with running(site.settings, site.clock, sources) as hub:
            app.state.hub = hub
            yield

    app = application.create(lifespan)
    async with app.router.lifespan_context(app):
        made = Api(app, app.state.hub, site)
        yield made
        for client in made.clients.values():
            await client.aclose()
    await made.agents.aclose()
