"""The session with one agent: requests to it, its reports, and the end of its connection.

A report is routed by command id to the sink of that command, and only if the command belongs to
this connection's instance (U1: an untrusted worker cannot report for another). Nothing here waits
for an agent without a deadline: one that is stopped, or half gone, reads nothing from its socket
and answers nothing (A6, N1, V18).

An agent that floods the hub waits for itself, and nobody else does (V19): the time that its
messages cost is counted, and it is not read for a while once that is more than its share.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from hostler_agent.wire import messages
from hostler_agent.wire.errors import LimitExceeded, ProtocolError, WireError
from hostler_agent.wire.extension import AGAIN, AGAIN_VERSION, LEAVE_CLOSE_CODE, AgentReport
from hostler_agent.wire.session import Answered, Failed, Rejected, Requested, Role, Session
from hostler_hub.runtime.ids import new_ulid
from hostler_hub.runtime.tasks import Tasks
from hostler_hub.runtime.token_bucket import TokenBucket
from hostler_hub.store.errors import LogGap, StoreUnavailable
from hostler_hub.workers.agents.facts import info_within_limits, report_within_limits
from hostler_hub.workers.errors import ConnectionLost

_log = structlog.get_logger(__name__)

# How many seconds sending a close frame may take: the peer may no longer be reading.
CLOSE_S = 2.0
# The share of the hub's time that one agent's messages may take on the average, and how many
# seconds of it at once.
SHARE = 0.25
BURST_S = 0.5
LONGEST_PAUSE_S = 5.0
# What a request costs beside its decoding, in seconds: its answer, and the store's work for each of
# an update's pairs.
REQUEST_S = 0.0002
PAIR_S = 0.0001
# How many seconds storing a report may take: after 60 the agent gives the connection up.
STORED_S = 30.0


@dataclass(frozen=True, slots=True)
class Admitted:
    """The worker and the instance that a connection speaks for.

    ``epoch`` is None, and ``instance`` a new id, for an agent that gave a password while its worker
    has no permanent instance.
    """

    worker: str
    instance: str
    epoch: int | None


class CommandSink(Protocol):
    """Receives an agent's reports of one command, which runs on ``instance``."""

    @property
    def instance(self) -> str: ...
    def update(self, pairs: Sequence[Sequence[Any]]) -> Awaitable[None]: ...
    def complete(self, error: str | None) -> Awaitable[None]: ...
    def carry(self, message: messages.Message) -> Awaitable[Any]:
        """Handle a message of the file transfer that was opened for the command.

        Returns the answer to the agent. Raises WireError or ValueError to refuse the message.
        """


@dataclass
class AgentSession:
    """The session with one agent, from its admission to the end of its connection.

    ``sinks``: the receivers of reports by command id. ``deadline_s``: for the answer to a request.
    ``is_store_away``: whether nothing that the agent reports can be stored now. ``report`` is None
    for a stock Buildbot worker. ``resumes``: no open lease of its instance began under another
    process of the agent. ``leaves``: it closed the connection for good.
    """

    websocket: WebSocket
    admitted: Admitted
    sinks: Mapping[str, CommandSink]
    deadline_s: float
    is_store_away: Callable[[], bool] = lambda: False
    id: str = field(default_factory=new_ulid)
    wire: Session = field(default_factory=lambda: Session(Role.HUB))
    info: Mapping[str, Any] = field(default_factory=dict)
    report: AgentReport | None = None
    resumes: bool = True
    leaves: bool = False
    heard: int = 0  # frames received, of any kind: each shows that the agent is alive
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: Tasks = field(default_factory=Tasks)
    room: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(64))
    _answered: asyncio.Event = field(default_factory=asyncio.Event)
    # The commands of which the agent is to send reports again.
    _behind: set[str] = field(default_factory=set)
    _budget: TokenBucket = field(
        default_factory=lambda: TokenBucket(SHARE, BURST_S, time.perf_counter)
    )

    @property
    def instance(self) -> str:
        return self.admitted.instance

    @property
    def client(self) -> str:
        """The address that the agent connects from, or "this machine" if it has none."""
        client = self.websocket.client
        return client.host if client is not None and client.host else "this machine"

    @property
    def process(self) -> str | None:
        """The id of the agent's process; None for a stock worker, which does not report one."""
        return None if self.report is None else self.report.process[:100]

    @property
    def former(self) -> str | None:
        """The id of the agent's process before, if that has handed it on to this one alone."""
        return None if self.report is None else self.report.former

    @property
    def boot_id(self) -> str | None:
        """The id of the machine's boot that the agent runs in; None if that is not known."""
        return None if self.report is None else self.report.boot_id

    @property
    def basedir(self) -> str:
        return str(self.info.get("basedir", "."))

    async def request(self, message: messages.Message) -> Any:
        """Send the agent a request and wait for its answer.

        Raises RemoteError (it refused), ConnectionLost, TimeoutError after ``deadline_s``.
        """
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        async with self.room:
            if self.closed.is_set():
                raise ConnectionLost("the agent's connection is closed")
            try:
                await self._send(self.wire.request(message, answer))
                async with asyncio.timeout(self.deadline_s):
                    return await answer
            finally:
                self.wire.abandon(answer)

    async def refresh_info(self) -> None:
        """Ask the agent for its facts: sets ``info`` and ``report``.

        Raises WireError (RemoteError, ProtocolError), ConnectionLost, TimeoutError.
        """
        info = await self.request(messages.GetWorkerInfo())
        if not isinstance(info, dict):
            raise ProtocolError("get_worker_info was not answered with a map")
        self.report = report_within_limits(AgentReport.parse(info))
        self.info = info_within_limits(info)

    async def read(self) -> None:
        """Receive frames until the connection ends.

        Closes the connection of an agent that breaks the protocol. Requests still unanswered at the
        end fail with ConnectionLost.
        """
        try:
            while True:
                data = await self.websocket.receive_bytes()
                began_at = time.perf_counter()
                cost_s = self._take(data)
                await self._pace(cost_s + time.perf_counter() - began_at)
                while self.wire.unanswered >= 64:  # stop reading: it is the peer that must wait
                    await self._one_answered()
        except WebSocketDisconnect as end:
            self.leaves = end.code == LEAVE_CLOSE_CODE
        except (KeyError, RuntimeError):
            pass  # how Starlette reports a text frame, and a close while we sent
        except WireError as error:
            _log.warning("agent broke the protocol", worker=self.admitted.worker, reason=str(error))
            await self.close(1009 if isinstance(error, LimitExceeded) else 1002, str(error)[:100])
        finally:
            self._lose()

    async def close(self, code: int, reason: str) -> None:
        """Close the connection; do without the close frame if the peer does not take it in CLOSE_S.

        Does nothing if the connection is closed already.
        """
        self.closed.set()
        if self.websocket.application_state is WebSocketState.DISCONNECTED:
            return
        # RuntimeError and WebSocketDisconnect: the peer closed the connection first.
        with contextlib.suppress(RuntimeError, WebSocketDisconnect, TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self.websocket.close(code, reason)

    async def _pace(self, cost_s: float) -> None:
        """Let the agent wait, unread, if its messages cost more than its share."""
        if owed_s := self._budget.take(cost_s):
            await asyncio.sleep(min(owed_s, LONGEST_PAUSE_S))

    def _take(self, frame: bytes) -> float:
        """Handle a frame. Returns the seconds that it costs later."""
        self.heard += 1
        event = self.wire.receive(frame)
        if isinstance(event, Answered):
            _settle(event.token, result=event.result)
        elif isinstance(event, Failed):
            _settle(event.token, error=event.error)
        elif isinstance(event, Rejected):
            self.tasks.spawn(self._reply(event.frame), "reject")
            return REQUEST_S
        elif isinstance(event, Requested):
            self.tasks.spawn(self._serve(event.seq_number, event.message), "serve")
            if isinstance(event.message, messages.Update):
                return REQUEST_S + PAIR_S * (len(event.message.args) - 1)
            if isinstance(event.message, messages.Keepalive):
                return REQUEST_S
        return 0.0

    async def _serve(self, seq_number: int, message: messages.Message) -> None:
        """Answer one request of the agent.

        These tasks start in the order of the frames, so sinks get reports in order.
        """
        try:
            frame = self.wire.answer(seq_number, await self._answer(message))
        except (WireError, ValueError) as error:
            frame = self.wire.refuse(seq_number, str(error))
        self._answered.set()
        await self._reply(frame)

    async def _reply(self, frame: bytes) -> None:
        with contextlib.suppress(ConnectionLost):  # what it reported it will report again
            await self._send(frame)

    async def _answer(self, message: messages.Message) -> Any:
        """Handle a request. A report that cannot be stored now is refused with AGAIN, where the
        agent understands that: it keeps the report, and its connection.
        """
        known = self.report.version if self.report is not None else 0
        if not isinstance(message, messages.Update | messages.Complete) or known < AGAIN_VERSION:
            try:
                return await self._route(message)
            except LogGap as gap:
                raise ProtocolError(f"update.output: {gap}") from gap
        # A command's end is not taken while reports from before it are to come again.
        ends_early = isinstance(message, messages.Complete) and message.command_id in self._behind
        if self.is_store_away() or ends_early:
            raise self._later(message.command_id)
        try:
            async with asyncio.timeout(STORED_S):
                answer = await self._route(message)
        except (StoreUnavailable, LogGap, TimeoutError):  # a gap: output before it was put off
            raise self._later(message.command_id) from None
        self._behind.discard(message.command_id)
        return answer

    def _later(self, command_id: str) -> ProtocolError:
        """The refusal of a report that is to be sent again."""
        if command_id in self.sinks:
            self._behind.add(command_id)
        return ProtocolError(AGAIN)

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


def _settle(token: object, *, result: Any = None, error: Exception | None = None) -> None:
    assert isinstance(token, asyncio.Future)
    if token.done():
        return
    if error is not None:
        token.set_exception(error)
    else:
        token.set_result(result)
