"""What the API needs of the rest of the hub, and the bundle that hands it over.

The protocols repeat the use cases' signatures, so that mypy holds the routers and the parts they
call against each other without either importing the other.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

from fastapi import Depends
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocket

from hostler_hub.builds.artifacts.exchange import Exchange
from hostler_hub.runtime.clock import Clock
from hostler_hub.runtime.settings import Settings
from hostler_hub.specs.build import BuildSpec
from hostler_hub.specs.group import GroupDefinition
from hostler_hub.specs.worker import WorkerDefinition
from hostler_hub.store.decisions import Filter
from hostler_hub.store.engine import Store
from hostler_hub.web.tokens import Tokens
from hostler_hub.workers.evidence import Evidence
from hostler_hub.workers.incident_log import Incidents
from hostler_hub.workers.leases import Leases
from hostler_hub.workers.reconcile.reconciler import Reconciler
from hostler_hub.workers.selection import Select

View = dict[str, Any]


class Fleet(Protocol):
    """The workers: definitions, modes, instances on demand."""

    async def define(
        self, definitions: Sequence[WorkerDefinition], *, dry_run: bool, by: str
    ) -> list[View]:
        """Creates or changes all of them or none; one result per definition."""

    async def remove(
        self, names: Sequence[str], *, force: bool, dry_run: bool, by: str
    ) -> list[View]:
        """Removes workers; Conflict for one with a running build unless `force`."""

    def choose(self, names: Sequence[str] | None, select: Select | None) -> list[str]:
        """The names of those an order is about: as given, or of those that fit now."""

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
        """Sets what an operator wants of workers, until an instant or for good."""

    async def substantiate(self, names: Sequence[str], *, by: str, dry_run: bool) -> list[View]:
        """Asks for instances; returns before they are up."""

    async def insubstantiate(self, names: Sequence[str], *, by: str, dry_run: bool) -> list[View]:
        """Asks for instances to end; returns before they are gone."""

    def view(self, name: str) -> View:
        """One worker; NotFound."""

    def query(self, names: Sequence[str]) -> View:
        """Any number of workers by name, and the names that are unknown."""

    def page(
        self,
        *,
        names: Sequence[str],
        state: str | None,
        mode: str | None,
        driver: str | None,
        label: str | None,
        missing: bool | None,
        limit: int,
        after: str | None,
    ) -> View:
        """Workers by name from `after` on: {"items", "next"}."""

    async def events(self, name: str, limit: int) -> list[View]:
        """The latest transitions of a worker, newest first; NotFound."""

    async def status(self) -> View:
        """Counts for an overview."""


class LogSlice(Protocol):
    """Bytes of a step's log: `data` from `offset` up to `end`; `complete` once no more can come."""

    @property
    def data(self) -> bytes:
        """The bytes themselves."""

    @property
    def offset(self) -> int:
        """Where they begin in the step's log."""

    @property
    def end(self) -> int:
        """Where the next read begins."""

    @property
    def complete(self) -> bool:
        """Whether `end` is the log's end for good."""


class Queue(Protocol):
    """The builds: submitted, run once to one result, read."""

    async def submit(
        self, spec: BuildSpec, *, by: str, idempotency_key: str | None
    ) -> tuple[View, bool]:
        """The build and whether it is new; Conflict for a key used with another spec."""

    async def get(self, id: str) -> View:  # the use case's own word
        """One build; NotFound."""

    async def wait(self, id: str, wait_s: float) -> View:
        """One build once it is over, or as it stands after `wait_s` seconds; NotFound."""

    async def page(
        self, *, state: str | None, worker: str | None, limit: int, after: str | None
    ) -> View:
        """Builds, newest first, from `after` on: {"items", "next"}."""

    async def cancel(self, id: str, *, reason: str | None, by: str) -> View:
        """Asks for a build's end; does nothing to one that is over; NotFound."""

    async def read_log(self, id: str, index: int, offset: int, limit: int) -> LogSlice:
        """Up to `limit` bytes of a step's log; NotFound."""

    def follow_log(self, id: str, index: int, offset: int) -> AsyncIterator[bytes]:
        """A step's log from `offset` on as it grows, until the step ends."""

    async def released(self) -> None:
        """Once the builds that are over have given their slots back, or it takes too long."""


class Groups(Protocol):
    """Groups of workers."""

    def listing(self) -> View:
        """Every group by name: {"items"}."""

    def view(self, name: str) -> View:
        """One group; NotFound."""

    async def define(
        self, definitions: Sequence[GroupDefinition], *, dry_run: bool, by: str
    ) -> list[View]:
        """Creates or changes all of them or none; one result per definition."""

    async def remove(self, names: Sequence[str], *, dry_run: bool, by: str) -> list[View]:
        """Removes groups; one result per name."""


class Journal(Protocol):
    """The log of decisions."""

    async def page(self, where: Filter, limit: int, after: int | None) -> View:
        """Decisions newest first, from before the id `after`: {"items", "next"}."""


class Agents(Protocol):
    """The agents' connections."""

    async def serve(self, websocket: WebSocket) -> None:
        """Authenticates the handshake and serves the connection until it ends."""


class Refusals(Protocol):
    """Who tried to attach and was not let in."""

    def page(self, limit: int) -> list[View]:
        """The latest attempts, latest first."""


@dataclass(frozen=True)
class Hub:
    """The running hub's parts; `app.state.hub` while the application lives. `id` is a ULID."""

    id: str
    settings: Settings
    clock: Clock
    store: Store
    tokens: Tokens
    fleet: Fleet
    queue: Queue
    agents: Agents
    refusals: Refusals
    exchange: Exchange
    reconciler: Reconciler
    evidence: Evidence
    leases: Leases
    journal: Journal
    incidents: Incidents
    groups: Groups


async def _hub_of(connection: HTTPConnection) -> Hub:  # a plain function costs a thread's hop
    hub: Hub = connection.app.state.hub
    return hub


HubPart = Annotated[Hub, Depends(_hub_of)]
