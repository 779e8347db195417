"""Live sessions with agents: who is attached, and what is asked of and heard from them.

Theory of operation. An agent dials in, is admitted (``admission``) or refused before the upgrade,
tells what it is, is told the hub's terms, and only then is the controller told that it attached:
whoever is attached can be given work. What it reports is routed by command id to the one who runs
that command, and only if the command belongs to this connection's instance (faults 3.1: a worker
that is not to be trusted speaks for nobody else).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from hostler_agent.wire import messages
from hostler_agent.wire.errors import ProtocolError, RemoteError, WireError
from hostler_agent.wire.extension import (
    GO_AWAY_CLOSE_CODE,
    LEAVE_CLOSE_CODE,
    AgentReport,
    HubSettings,
)
from hostler_agent.wire.session import Answered, Failed, Rejected, Requested, Role, Session
from hostler_hub.admission import Admission, Admitted
from hostler_hub.clock import Clock
from hostler_hub.controller import Also, Controller
from hostler_hub.errors import NotFound
from hostler_hub.facts import facts_of
from hostler_hub.identifiers import new_ulid
from hostler_hub.lifecycle import events
from hostler_hub.registry import Registry
from hostler_hub.settings import Settings
from hostler_hub.store import workers
from hostler_hub.store.engine import Store
from hostler_hub.store.errors import StoreUnavailable
from hostler_hub.tasks import Tasks
from hostler_hub.waiters import Waiters

_log = structlog.get_logger(__name__)

# What Buildbot's own master asks for, but for the wait: a person follows the log live.
BUFFER_SIZE_BYTES = 64 * 1024
BUFFER_TIMEOUT_S = 0.2
MAX_LINE_LENGTH = 4096
NEWLINE_RE = r"(\r\n|\r(?=.)|\033\[u|\033\[[0-9]+;[0-9]+[Hf]|\033\[2J|\x08+)"

TRY_AGAIN_CLOSE_CODE = 1013


class ConnectionLost(Exception):
    """The agent's connection ended before it answered. It may have done what it was asked."""


class CommandSink(Protocol):
    """Who runs a command and hears of it."""

    @property
    def instance(self) -> str: ...
    def update(self, pairs: Sequence[Sequence[Any]]) -> Awaitable[None]: ...
    def complete(self, error: str | None) -> Awaitable[None]: ...
    def carry(self, message: messages.Message) -> Awaitable[Any]:
        """A message of the file transfer that was opened for the command; its answer."""


@dataclass
class AgentSession:
    """One attached agent."""

    websocket: WebSocket
    admitted: Admitted
    sinks: Mapping[str, CommandSink]
    deadline_s: float
    id: str = field(default_factory=new_ulid)
    wire: Session = field(default_factory=lambda: Session(Role.HUB))
    info: Mapping[str, Any] = field(default_factory=dict)
    report: AgentReport | None = None
    resumes: bool = True
    leaves: bool = False
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: Tasks = field(default_factory=Tasks)
    room: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(64))

    @property
    def instance(self) -> str:
        return self.admitted.instance

    @property
    def process(self) -> str | None:
        """Which agent process it is; None for a stock peer, which does not say."""
        return None if self.report is None else self.report.process[:100]

    @property
    def basedir(self) -> str:
        return str(self.info.get("basedir", "."))

    async def request(self, message: messages.Message) -> Any:
        """Ask the agent and wait for its answer.

        Raises RemoteError (it refused), ConnectionLost, TimeoutError after the deadline.
        """
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        async with self.room:
            if self.closed.is_set():
                raise ConnectionLost("the agent's connection is closed")
            await self._send(self.wire.request(message, answer))
            try:
                async with asyncio.timeout(self.deadline_s):
                    return await answer
            finally:
                self.wire.abandon(answer)

    async def read(self) -> None:
        """Take frames until the connection ends; returns then."""
        try:
            while True:
                self._take(await self.websocket.receive_bytes())
                while self.wire.unanswered >= 64:  # stop reading: it is the peer that must wait
                    await self._one_answered()
        except WebSocketDisconnect as end:
            self.leaves = end.code == LEAVE_CLOSE_CODE
        except (KeyError, RuntimeError):
            pass  # Starlette's ways to say: a text frame, closed while we sent
        except WireError as error:
            _log.warning("agent broke the protocol", worker=self.admitted.worker, reason=str(error))
            await self.close(1002, str(error)[:100])
        finally:
            self._lose()

    async def close(self, code: int, reason: str) -> None:
        self.closed.set()
        if self.websocket.application_state is not WebSocketState.DISCONNECTED:
            with contextlib.suppress(RuntimeError, WebSocketDisconnect):  # it was faster
                await self.websocket.close(code, reason)

    def _take(self, frame: bytes) -> None:
        event = self.wire.receive(frame)
        if isinstance(event, Answered):
            _settle(event.token, result=event.result)
        elif isinstance(event, Failed):
            _settle(event.token, error=event.error)
        elif isinstance(event, Rejected):
            self.tasks.spawn(self._reply(event.frame), "reject")
        elif isinstance(event, Requested):
            self.tasks.spawn(self._serve(event.seq_number, event.message), "serve")

    async def _serve(self, seq_number: int, message: messages.Message) -> None:
        """Answer one request. Tasks start in the order of the frames, so sinks hear in order."""
        try:
            frame = self.wire.answer(seq_number, await self._route(message))
        except (WireError, ValueError) as error:
            frame = self.wire.refuse(seq_number, str(error))
        self._answered.set()
        await self._reply(frame)

    async def _reply(self, frame: bytes) -> None:
        with contextlib.suppress(ConnectionLost):  # what it reported it will report again
            await self._send(frame)

    async def _route(self, message: messages.Message) -> Any:
        if isinstance(message, messages.Keepalive):
            return None
        command_id = getattr(message, "command_id", "")
        sink = self.sinks.get(command_id)
        if sink is None or sink.instance != self.instance:
            raise ProtocolError(f"unknown command_id {command_id[:100]!r}")
        if isinstance(message, messages.Update):
            await sink.update(message.args)
        elif isinstance(message, messages.Complete):
            await sink.complete(message.args)
        else:
            return await sink.carry(message)
        return None

    async def _send(self, frame: bytes) -> None:
        try:
            await self.websocket.send_bytes(frame)
        except (RuntimeError, WebSocketDisconnect) as error:
            raise ConnectionLost("the agent's connection is closed") from error

    async def _one_answered(self) -> None:
        self._answered.clear()
        await self._answered.wait()

    def _lose(self) -> None:
        self.closed.set()
        for token in self.wire.lose():
            _settle(token, error=ConnectionLost("the agent's connection is gone"))

    def __post_init__(self) -> None:
        self._answered = asyncio.Event()


def _settle(token: object, *, result: Any = None, error: Exception | None = None) -> None:
    assert isinstance(token, asyncio.Future)
    if token.done():
        return
    if error is not None:
        token.set_exception(error)
    else:
        token.set_result(result)


class Agents:
    """All live sessions, by connection and by instance."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        clock: Clock,
        registry: Registry,
        controller: Controller,
        admission: Admission,
    ) -> None:
        self._settings = settings
        self._store = store
        self._clock = clock
        self._registry = registry
        self._controller = controller
        self._admission = admission
        self._by_connection: dict[str, AgentSession] = {}
        self._by_instance: dict[str, AgentSession] = {}
        self._arrivals: Waiters[str] = Waiters()
        self._sinks: dict[str, CommandSink] = {}
        self._tasks = Tasks()

    # --- for those who run commands -------------------------------------------------------------

    def listen(self, command_id: str, sink: CommandSink) -> None:
        """From now on ``sink`` hears of that command, over whatever connection."""
        self._sinks[command_id] = sink

    def unlisten(self, command_id: str) -> None:
        self._sinks.pop(command_id, None)

    async def session(self, instance: str) -> AgentSession:
        """The instance's session; waits until it is attached."""
        while True:
            session = self._by_instance.get(instance)
            if session is not None and not session.closed.is_set():
                return session
            with self._arrivals.waiting(instance) as arrived:
                await arrived.wait()

    # --- for the controller -----------------------------------------------------------------------

    def send_away(self, connection: str, reason: str) -> None:
        """Order an agent to go away and not to come back; never waits for it (V18)."""
        session = self._by_connection.get(connection)
        if session is not None:
            self._tasks.spawn(_part_with(session, reason), f"send away {session.admitted.worker}")

    async def aclose(self) -> None:
        """The hub stops: close every connection; agents reconnect to the next hub."""
        sessions = list(self._by_connection.values())
        await asyncio.gather(*(session.close(1012, "the hub restarts") for session in sessions))
        await self._tasks.aclose()

    # --- for the web application ----------------------------------------------------------------

    async def serve(self, websocket: WebSocket) -> None:
        """Everything from the handshake to the end of one agent's connection."""
        admitted = await self._admission.admit(websocket)
        if admitted is None:
            return
        await websocket.accept()
        session = AgentSession(
            websocket, admitted, self._sinks, deadline_s=self._settings.request_deadline_s
        )
        reading = asyncio.create_task(session.read(), name=f"agent {admitted.worker}")
        try:
            if await self._attach(session):
                await session.closed.wait()
        finally:
            await self._detach(session)
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            await session.tasks.aclose()

    async def _attach(self, session: AgentSession) -> bool:
        try:
            async with asyncio.timeout(self._settings.unauthenticated_s):
                await self._prepare(session)
        except (WireError, ConnectionLost, TimeoutError, NotFound, StoreUnavailable) as error:
            # L19, L20: an agent that does not get this far never gets work.
            reason = str(error) or "no answer in time"
            _log.warning("agent not prepared", worker=session.admitted.worker, reason=reason)
            await session.close(1002, reason[:100])
            return False
        self._by_connection[session.id] = session
        event = events.Attached(
            at=self._clock.now(),
            instance=session.instance,
            epoch=session.admitted.epoch,
            connection=session.id,
            resumable=session.report is not None,
            resumes=session.resumes,
        )
        try:
            worker, also = session.admitted.worker, _note_process(session)
            life = await self._controller.handle(worker, event, also)
        except NotFound:
            await session.close(GO_AWAY_CLOSE_CODE, "the worker was removed")
            return False
        except StoreUnavailable:
            await session.close(TRY_AGAIN_CLOSE_CODE, "the hub cannot record it now")
            return False
        if life.connection != session.id:
            return True  # refused by the core, which has ordered it sent away
        self._by_instance[session.instance] = session
        self._arrivals.wake(session.instance)
        return True

    async def _prepare(self, session: AgentSession) -> None:
        info = await session.request(messages.GetWorkerInfo())
        if not isinstance(info, dict):
            raise ProtocolError("get_worker_info was not answered with a map")
        session.info = info
        session.report = AgentReport.parse(info)
        if session.process is not None:
            known = await self._store.read(workers.process, session.instance)
            session.resumes = known in {None, session.process}
        await session.request(self._terms(session))
        facts = facts_of(info, session.report)
        entry = self._registry.get(session.admitted.worker)
        if facts != entry.facts:
            await self._store.write(workers.set_facts, entry.life.name, facts)
            entry.facts = facts

    def _terms(self, session: AgentSession) -> messages.SetWorkerSettings:
        hostler = None
        if session.report is not None:
            resume = tuple(
                command_id
                for command_id, sink in self._sinks.items()
                if sink.instance == session.instance
            )
            settings = self._settings
            hostler = HubSettings(
                lease_ttl_s=settings.lease_ttl_s,
                resume=resume,
                go_away_grace_s=settings.go_away_grace_s,
                instance=session.instance,
                epoch=session.admitted.epoch,
            ).body()
        return messages.SetWorkerSettings(
            BUFFER_SIZE_BYTES, BUFFER_TIMEOUT_S, NEWLINE_RE, MAX_LINE_LENGTH, hostler
        )

    async def _detach(self, session: AgentSession) -> None:
        """Removal is keyed on the connection: an old one's end never removes its successor."""
        session.closed.set()
        self._by_connection.pop(session.id, None)
        if self._by_instance.get(session.instance) is session:
            del self._by_instance[session.instance]
        cause = f"connection closed ({session.websocket.client_state.name.lower()})"
        event = events.Detached(
            at=self._clock.now(), connection=session.id, cause=cause, leaves=session.leaves
        )
        await self._controller.insist(session.admitted.worker, event)


def _note_process(session: AgentSession) -> Also | None:
    """With the attach, since a permanent worker's instance is recorded only then."""
    process = session.process
    if process is None:
        return None
    return lambda c: workers.note_process(c, session.instance, process)


async def _part_with(session: AgentSession, reason: str) -> None:
    _log.info("agent sent away", worker=session.admitted.worker, reason=reason)
    with contextlib.suppress(ConnectionLost, RemoteError, TimeoutError):
        async with asyncio.timeout(2):  # the close code says it too
            await session.request(messages.Shutdown())
    await session.close(GO_AWAY_CLOSE_CODE, reason[:100])
