"""The real application on a real store, with small in-memory parts where the routers call.

The fakes keep the use cases' contracts (`api/ports.py`): what is tested here are the routers.
"""

# ruff: noqa: A001  # `id` is the use cases' own word

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from starlette.websockets import WebSocket

from hostler_hub.builds.artifacts.exchange import Exchange
from hostler_hub.builds.artifacts.files import Files
from hostler_hub.builds.artifacts.store import Artifacts
from hostler_hub.drivers.contract import Environment
from hostler_hub.drivers.fake.driver import FakeDriver, FakeProvider
from hostler_hub.errors import Conflict, NotFound
from hostler_hub.runtime.settings import Settings
from hostler_hub.runtime.virtual_clock import VirtualClock
from hostler_hub.scheduling.decision_log import Journal
from hostler_hub.scheduling.groups import Groups
from hostler_hub.scheduling.pool_policy import Overseer
from hostler_hub.specs.build import BuildSpec
from hostler_hub.specs.caller import Role
from hostler_hub.specs.worker import WorkerDefinition
from hostler_hub.store.engine import Store
from hostler_hub.web import application
from hostler_hub.web.hub import Hub, View
from hostler_hub.web.tokens import Tokens
from hostler_hub.workers.agents.refusals import Refusals
from hostler_hub.workers.controller import Controller
from hostler_hub.workers.evidence import Evidence
from hostler_hub.workers.incident_log import Incidents
from hostler_hub.workers.incidents import Recipient
from hostler_hub.workers.reconcile.reconciler import Reconciler
from hostler_hub.workers.registry import Registry
from hostler_hub.workers.selection import Select

sys.path.insert(0, str(Path(__file__).parent))
from leasing import Leasing  # pytest's importlib mode adds no path by itself

HUB_ID = "01K8Z9Q8Y3N6V4T2R0P9M7K5J3"
NOW = "2026-01-02T03:04:05.678Z"


def worker_view(definition: WorkerDefinition) -> View:
    return {
        "name": definition.name,
        "driver": definition.driver,
        "description": definition.description,
        "mode": "active",
        "mode_reason": None,
        "mode_by": None,
        "mode_at": None,
        "mode_until": None,
        "state": "latent",
        "state_since": NOW,
        "attached": False,
        "instance": None,
        "epoch": 0,
        "up_since": None,
        "uses": 0,
        "retiring": None,
        "failed_starts": 0,
        "admission": None,
        "quarantine": None,
        "missing": None,
        "lease": None,
        "incidents": {},
        "removing": False,
        "last_error": None,
        "builds": [],
        "properties": dict(definition.properties),
        "labels": list(definition.labels),
        "max_builds": definition.max_builds,
        "definition": {**definition.public(), "has_password": definition.password is not None},
        "facts": {},
        "revision": 1,
        "why": {"not_started": "no build", "not_used": "no build", "not_stopped": None},
    }


class FakeFleet:
    """Workers in a dictionary; notes each call that changes something with who made it."""

    def __init__(self) -> None:
        self.workers: dict[str, View] = {}
        self.calls: list[tuple[str, dict[str, Any]]] = []

    async def define(
        self, definitions: Sequence[WorkerDefinition], *, dry_run: bool, by: str
    ) -> list[View]:
        self.calls.append(("define", {"by": by, "dry_run": dry_run}))
        results = []
        for each in definitions:
            old = self.workers.get(each.name)
            new = worker_view(each)
            results.append(
                {
                    "name": each.name,
                    "changed": old is None or old["definition"] != new["definition"],
                    "created": old is None,
                    "before": old and old["definition"],
                    "after": new["definition"],
                }
            )
            if not dry_run:
                self.workers[each.name] = new
        return results

    async def remove(
        self, names: Sequence[str], *, force: bool, dry_run: bool, by: str
    ) -> list[View]:
        self.calls.append(("remove", {"by": by, "dry_run": dry_run, "force": force}))
        if not force and any(self.view(name)["builds"] for name in names):
            raise Conflict("busy runs a build", pointer="/names/0")
        results = [{"name": name, "changed": True, "state": "absent"} for name in names]
        for name in names:
            self.workers.pop(name)
        return results

    def choose(self, names: Sequence[str] | None, select: Select | None) -> list[str]:
        if select is None:
            return list(names or ())
        plain = select.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
        self.calls.append(("choose", plain))
        return sorted(self.workers)

    async def set_mode(
        self,
        names: Sequence[str],
        *,
        mode: str,
        reason: str | None,
        by: str,
        dry_run: bool,
        until: float | None,
    ) -> list[View]:
        order = {"by": by, "dry_run": dry_run, "reason": reason, "until": until}
        self.calls.append(("set_mode", order))
        results = []
        for view in [self.view(name) for name in names]:
            before = {"mode": view["mode"], "reason": view["mode_reason"], "until": None}
            after = {"mode": mode, "reason": reason, "until": None}
            view.update(mode=mode, mode_reason=reason)
            result = {"name": view["name"], "before": before, "after": after}
            results.append({**result, "changed": before != after})
        return results

    async def substantiate(self, names: Sequence[str], *, by: str, dry_run: bool) -> list[View]:
        self.calls.append(("substantiate", {"by": by, "dry_run": dry_run}))
        return [{"name": name, "changed": True, "state": "substantiating"} for name in names]

    async def insubstantiate(self, names: Sequence[str], *, by: str, dry_run: bool) -> list[View]:
        self.calls.append(("insubstantiate", {"by": by, "dry_run": dry_run}))
        return [{"name": name, "changed": False, "state": "latent"} for name in names]

    def view(self, name: str) -> View:
        if name not in self.workers:
            raise NotFound(f"there is no worker {name}")
        return self.workers[name]

    def query(self, names: Sequence[str]) -> View:
        return {
            "items": [self.workers[name] for name in names if name in self.workers],
            "unknown": [name for name in names if name not in self.workers],
        }

    def page(self, *, limit: int, after: str | None, **where: Any) -> View:
        self.calls.append(("page", where))
        names = [name for name in sorted(self.workers) if after is None or name > after]
        full = len(names) > limit
        return {
            "items": [self.workers[name] for name in names[:limit]],
            "next": names[limit - 1] if full else None,
        }

    async def events(self, name: str, limit: int) -> list[View]:
        self.view(name)
        event = {"at": NOW, "event": "Define", "from": "latent", "to": "latent", "cause": None}
        return [{**event, "instance": None, "epoch": 0}][:limit]

    async def status(self) -> View:
        counts: dict[str, Any] = {"by_state": {"latent": len(self.workers)}, "by_mode": {}}
        counts.update(total=len(self.workers), attached=0, missing=0, quarantined=0)
        return {"workers": counts, "builds": {"queued": 0, "running": 0}}


@dataclass
class Slice:
    data: bytes
    offset: int
    end: int
    complete: bool


@dataclass
class FakeQueue:
    """Builds in a dictionary, and one log that every step shares."""

    builds: dict[str, View] = field(default_factory=dict)
    keys: dict[tuple[str, str], str] = field(default_factory=dict)
    log: bytes = b""
    waited: list[float] = field(default_factory=list)

    async def submit(
        self, spec: BuildSpec, *, by: str, idempotency_key: str | None
    ) -> tuple[View, bool]:
        plain = spec.model_dump(mode="json")
        if idempotency_key is not None and (by, idempotency_key) in self.keys:
            view = self.builds[self.keys[by, idempotency_key]]
            if view["spec"] != plain:
                raise Conflict("the key belongs to another build")
            return view, False
        id = f"01K8Z9Q8Y3N6V4T2R0P9M7K5{len(self.builds):02d}"
        view = {"id": id, "name": spec.name, "state": "queued", "spec": plain, "worker": None}
        view.update(attempts=0, submitted_by=by, submitted_at=NOW, started_at=None)
        view.update(finished_at=None, result_text=None, why="no worker is free", steps=[])
        view["properties"] = plain["properties"]
        self.builds[id] = view
        if idempotency_key is not None:
            self.keys[by, idempotency_key] = id
        return view, True

    async def get(self, id: str) -> View:
        if id not in self.builds:
            raise NotFound(f"there is no build {id}")
        return self.builds[id]

    async def wait(self, id: str, wait_s: float) -> View:
        self.waited.append(wait_s)
        return await self.get(id)

    async def page(
        self, *, state: str | None, worker: str | None, limit: int, after: str | None
    ) -> View:
        newest = [self.builds[id] for id in sorted(self.builds, reverse=True)]
        return {"items": newest[:limit], "next": None}

    async def cancel(self, id: str, *, reason: str | None, by: str) -> View:
        view = await self.get(id)
        view.update(state="cancelled", result_text=f"cancelled by {by}: {reason}", why=None)
        return view

    async def read_log(self, id: str, index: int, offset: int, limit: int) -> Slice:
        await self.get(id)
        data = self.log[offset : offset + limit]
        return Slice(data, offset, offset + len(data), complete=True)

    async def follow_log(self, id: str, index: int, offset: int) -> AsyncIterator[bytes]:
        for start in range(offset, len(self.log), 4):
            yield self.log[start : start + 4]


class FakeAgents:
    """Says on each connection by which path it came."""

    async def serve(self, websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(websocket.url.path)
        await websocket.close()


@dataclass
class Api:
    """The application under test, its parts, and clients of any role."""

    app: FastAPI
    hub: Hub
    fleet: FakeFleet
    queue: FakeQueue
    provider: FakeProvider
    leasing: Leasing
    clients: dict[str, httpx2.AsyncClient] = field(default_factory=dict)

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


@pytest.fixture
async def api(sqlite_template: Path, tmp_path: Path) -> AsyncIterator[Api]:
    path = tmp_path / "hub.sqlite3"
    shutil.copy(sqlite_template, path)
    settings = Settings(state_dir=tmp_path)
    fleet, queue, clock = FakeFleet(), FakeQueue(), VirtualClock()
    async with Store(settings.database_url, exclusive=True) as store:
        tokens = Tokens(store, clock)
        threads = ThreadPoolExecutor(2)
        artifacts = Artifacts(tmp_path / "artifacts", store, clock, threads)
        exchange = Exchange(artifacts, Files(tmp_path / "files", threads))
        people, outbox = (Recipient("mail", "ops@example.org"),), asyncio.Event()
        incidents = Incidents(store, clock, Registry(), people, outbox.set)
        leasing = Leasing(store, clock, tmp_path)
        provider = FakeProvider()
        controller = Controller(store, clock, registry := Registry(), {}, 300.0)
        environment = Environment(HUB_ID, tmp_path, "ws://127.0.0.1:9/")
        drivers = {"fake": FakeDriver(environment, provider)}
        journal = Journal(store, clock, 3600.0, 1000)
        hub = Hub(
            id=HUB_ID,
            settings=settings,
            clock=clock,
            store=store,
            tokens=tokens,
            fleet=fleet,
            queue=queue,
            agents=FakeAgents(),
            exchange=exchange,
            refusals=Refusals(store, clock),
            reconciler=Reconciler(store, clock, registry, controller, drivers, 300.0),
            evidence=Evidence(store, clock),
            leases=leasing.leases,
            incidents=incidents,
            journal=journal,
            groups=Groups(store, clock, Overseer(clock, registry, journal), lambda: None),
        )

        @asynccontextmanager
        async def lifespan(app: FastAPI) -> AsyncIterator[None]:
            app.state.hub = hub
            yield

        app = application.create(lifespan)
        async with app.router.lifespan_context(app):
            made = Api(app, hub, fleet, queue, provider, leasing)
            yield made
            for client in made.clients.values():
                await client.aclose()
        await leasing.aclose()
        threads.shutdown()
        artifacts.close()
        exchange.files.close()


AsRole = Callable[[Role], Awaitable[httpx2.AsyncClient]]


@pytest.fixture
def as_role(api: Api) -> AsRole:
    """Makes a client that sends a token of the role."""

    async def make(role: Role) -> httpx2.AsyncClient:
        return api.client(await api.token(role))

    return make


@pytest.fixture
async def operator(as_role: AsRole) -> httpx2.AsyncClient:
    return await as_role(Role.OPERATOR)


@pytest.fixture
async def admin(as_role: AsRole) -> httpx2.AsyncClient:
    return await as_role(Role.ADMIN)
