"""Serves the connections of agents, each from its handshake to its end.

Theory of operation. An agent dials in, is admitted (``admission``) or refused before the upgrade,
reports its facts, gets the hub's settings, and only then the controller handles ``Attached``: an
attached agent can be given work. While it is attached the hub sends heartbeats; an agent that is
silent for three of them is disconnected.
Another process that comes as an agent whose connection is open is refused (``rivals``).
"""

from __future__ import annotations

import asyncio

import structlog
from starlette.websockets import WebSocket

from hostler_agent.wire import messages
from hostler_agent.wire.errors import WireError
from hostler_agent.wire.extension import GO_AWAY_CLOSE_CODE, HubSettings
from hostler_hub.errors import NotFound
from hostler_hub.lifecycle import events
from hostler_hub.runtime.clock import Clock
from hostler_hub.runtime.settings import Settings
from hostler_hub.store import builds
from hostler_hub.store.engine import Store
from hostler_hub.store.errors import StoreUnavailable
from hostler_hub.store.health import Use
from hostler_hub.workers.agents.session import AgentSession
from hostler_hub.workers.agents.sessions import TRY_AGAIN_CLOSE_CODE, Sessions
from hostler_hub.workers.connections.admission import Admission
from hostler_hub.workers.connections.heartbeat import Heartbeat
from hostler_hub.workers.connections.rivals import Rivals
from hostler_hub.workers.controller import Controller
from hostler_hub.workers.errors import ConnectionLost
from hostler_hub.workers.hold import Hold
from hostler_hub.workers.registry import Registry

_log = structlog.get_logger(__name__)

# The values of Buildbot's own master, but a shorter timeout: people follow logs live.
BUFFER_SIZE_BYTES = 64 * 1024
BUFFER_TIMEOUT_S = 0.2
MAX_LINE_LENGTH = 4096
NEWLINE_RE = r"(\r\n|\r(?=.)|\033\[u|\033\[[0-9]+;[0-9]+[Hf]|\033\[2J|\x08+)"


class AgentServer:
    """Serves agents' connections; keeps the live ones in ``sessions``."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        clock: Clock,
        registry: Registry,
        controller: Controller,
        admission: Admission,
        sessions: Sessions,
        hold: Hold,
    ) -> None:
        self._settings = settings
        self._store = store
        self._clock = clock
        self._registry = registry
        self._controller = controller
        self._admission = admission
        self._sessions = sessions
        self._rivals = Rivals(
            registry, sessions, controller, clock, settings, hold, self._report_detached
        )

    async def serve(self, websocket: WebSocket) -> None:
        """Serve one agent's connection, from its handshake to its end."""
        admitted = await self._admission.admit(websocket)
        if admitted is None:
            return
        await websocket.accept()
        session = AgentSession(
            websocket,
            admitted,
            self._sessions.sinks,
            deadline_s=self._settings.request_deadline_s,
            is_store_away=lambda: self._store.health.is_failing(Use.WRITE),
        )
        reading = asyncio.create_task(session.read(), name=f"agent {admitted.worker}")
        try:
            if await self._attach(session):
                await self._heartbeat(session).run()
        finally:
            await self._detach(session)
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            await session.tasks.aclose()

    async def _attach(self, session: AgentSession) -> bool:
        try:
            async with asyncio.timeout(self._settings.unauthenticated_s):
                await session.refresh_info()
            if not await self._rivals.is_uncontested(session):
                return False
            proven = self._rivals.is_proven(session)
            async with asyncio.timeout(self._settings.unauthenticated_s):
                await self._prepare(session)
                if self._rivals.is_believed(session, proven=proven):
                    await self._sessions.store_facts(session)
        except (WireError, ConnectionLost, TimeoutError, NotFound, StoreUnavailable) as error:
            # L19, L20: an agent that does not get this far never gets work.
            reason = str(error) or "no answer in time"
            log = _log.debug if isinstance(error, StoreUnavailable) else _log.warning
            log("agent not prepared", worker=session.admitted.worker, reason=reason)
            await session.close(1002, reason[:100])
            return False
        self._sessions.add(session)
        event = events.Attached(
            at=self._clock.now(),
            instance=session.instance,
            epoch=session.admitted.epoch,
            connection=session.id,
            resumable=session.report is not None,
            resumes=session.resumes,
            process=session.process,
            proven=proven,
        )
        try:
            life = await self._controller.handle(session.admitted.worker, event)
        except NotFound:
            await session.close(GO_AWAY_CLOSE_CODE, "the worker was removed")
            return False
        except StoreUnavailable:
            await session.close(TRY_AGAIN_CLOSE_CODE, "the hub cannot record it now")
            return False
        if life.connection != session.id:
            return True  # refused by the core, which has ordered it sent away
        self._sessions.attach(session)
        return True

    def _heartbeat(self, session: AgentSession) -> Heartbeat:
        interval_s = self._keepalive_interval_s(session) or self._settings.ping_interval_s
        return Heartbeat(session, interval_s, self._controller.stalls)

    def _keepalive_interval_s(self, session: AgentSession) -> float | None:
        """The interval that the worker's definition asks for; None where the hub's applies."""
        entry = self._registry.find(session.admitted.worker)
        own = entry.definition.keepalive_interval if entry is not None else None
        return None if own is None else float(own)

    async def _prepare(self, session: AgentSession) -> None:
        """Find out what the agent resumes, and send it the hub's terms."""
        if session.process is not None:
            session.resumes = not await self._store.read(
                builds.are_leases_stranded, session.instance, session.process
            )
        await session.request(self._terms(session))

    def _terms(self, session: AgentSession) -> messages.SetWorkerSettings:
        hostler = None
        if session.report is not None:
            settings = self._settings
            hostler = HubSettings(
                lease_ttl_s=settings.lease_ttl_s,
                resume=self._sessions.commands_of(session.instance),
                go_away_grace_s=settings.go_away_grace_s,
                instance=session.instance,
                epoch=session.admitted.epoch,
                keepalive_interval_s=self._keepalive_interval_s(session),
            ).body()
        return messages.SetWorkerSettings(
            BUFFER_SIZE_BYTES, BUFFER_TIMEOUT_S, NEWLINE_RE, MAX_LINE_LENGTH, hostler
        )

    async def _detach(self, session: AgentSession) -> None:
        """Report the connection's end to the controller, and remove the session.

        Both are by connection: the end of an old one never removes its successor. The session is
        found until its end is known, so that a successor waits for that.
        """
        session.closed.set()
        try:
            await self._report_detached(session)
        finally:
            self._sessions.discard(session)

    async def _report_detached(self, session: AgentSession) -> None:
        """Report the connection's end. Only the first report of a connection counts."""
        cause = f"connection closed ({session.websocket.client_state.name.lower()})"
        event = events.Detached(
            at=self._clock.now(), connection=session.id, cause=cause, leaves=session.leaves
        )
        await self._controller.handle_until_stored(session.admitted.worker, event)
