"""The running hub as the web layer sees it: the services that routes and pages call."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from hostler_hub.builds.artifacts.exchange import Exchange
from hostler_hub.builds.service import Builds
from hostler_hub.builds.supervisor import Supervisor
from hostler_hub.runtime.clock import Clock
from hostler_hub.runtime.settings import Settings
from hostler_hub.scheduling.decision_log import DecisionLog
from hostler_hub.scheduling.groups import Groups
from hostler_hub.scheduling.open_breakers import OpenBreakers
from hostler_hub.store.engine import Store
from hostler_hub.web.tokens import Tokens
from hostler_hub.workers.connections.refusals import Refusals
from hostler_hub.workers.connections.server import AgentServer
from hostler_hub.workers.definitions import Definitions
from hostler_hub.workers.evidence import Evidence
from hostler_hub.workers.incident_log import Incidents
from hostler_hub.workers.leases import Leases
from hostler_hub.workers.reconcile.reconciler import Reconciler
from hostler_hub.workers.service import Workers


@dataclass(frozen=True)
class Hub:
    """The services of one running hub; `app.state.hub` while the application lives.

    `id` is a ULID, made once per database.
    """

    id: str
    settings: Settings
    clock: Clock
    store: Store
    tokens: Tokens
    workers: Workers
    builds: Builds
    definitions: Definitions
    supervisor: Supervisor
    agents: AgentServer
    refusals: Refusals
    exchange: Exchange
    reconciler: Reconciler
    evidence: Evidence
    leases: Leases
    decisions: DecisionLog
    incidents: Incidents
    groups: Groups
    breakers: OpenBreakers


async def _hub_of(connection: HTTPConnection) -> Hub:  # FastAPI runs a plain function in a thread
    hub: Hub = connection.app.state.hub
    return hub


HubPart = Annotated[Hub, Depends(_hub_of)]
