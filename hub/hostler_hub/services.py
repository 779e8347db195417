"""What runners are given: the parts of the hub they use, and the lease they run under."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hostler_hub.builds.artifacts.exchange import Exchange
from hostler_hub.builds.logs import Logs
from hostler_hub.runtime.clock import Clock
from hostler_hub.store.engine import Store
from hostler_hub.workers.agents.sessions import Agents
from hostler_hub.workers.controller import Controller


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to one slot of a worker for one attempt of a build."""

    id: str
    build: str
    worker: str
    instance: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Services:
    """What every runner uses."""

    store: Store
    clock: Clock
    controller: Controller
    agents: Agents
    logs: Logs
    exchange: Exchange
    on_finished: Callable[[str], None]
    on_lost: Callable[[Lease, str], None]
