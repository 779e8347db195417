"""One open connection to the hub: a WebSocket around a wire session.

Three tasks serve it. The *reader* takes frames and passes requests to the handler. The *writer* is
the only one that sends, so that the reader never waits for a hub that itself waits for the agent to
read. The *pinger* sends a WebSocket ping every 20 s and aborts the connection if the answer takes
another 20 s (N1: a half-open connection is found within 40 s). The library's own keepalive is off,
because the lease is counted from the time at which an *answered* ping was *sent* (A7).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Optional

from hostler_agent.errors import DeadlineExceeded, LinkLost, OrderedAway
from hostler_agent.wire.errors import LimitExceeded, ProtocolError, WireError
from hostler_agent.wire.extension import GO_AWAY_CLOSE_CODE
from hostler_agent.wire.limits import TO_HUB
from hostler_agent.wire.session import (
    Answered,
    Failed,
    Rejected,
    Requested,
    Role,
    Session,
)

if TYPE_CHECKING:
    from hostler_agent.clock import Clock, Timer
    from hostler_agent.hub.websocket import HubWebSocket
    from hostler_agent.wire.messages import Message, Packed

PING_INTERVAL_S = 20.0
PING_DEADLINE_S = 20.0
REQUEST_DEADLINE_S = 60.0
CLOSE_DEADLINE_S = 5.0
MAX_UNSENT_ANSWERS = 256
SENT_AT_ONCE_BYTES = 32 * 1024

CLOSE_PROTOCOL_ERROR = 1002
CLOSE_UNSUPPORTED_DATA = 1003
CLOSE_TOO_BIG = 1009
CLOSE_TRY_AGAIN = 1013

log = logging.getLogger(__name__)

Handler = Callable[["Message"], Awaitable[Any]]
"""Answers a request with a result, or raises: the exception's text is the error's."""


@dataclass(frozen=True, eq=False)
class _Pending:
    """A request to the hub that waits for its answer."""

    answer: asyncio.Future[Any]
    sent_at: float
    timer: Timer


class Connection:
    """An open connection, made by `link.Link`; usable until serve() returns."""

    def __init__(
        self, socket: HubWebSocket, clock: Clock, contacted: Callable[[float], None]
    ) -> None:
        """`contacted` is called with the time of sending, when the hub has answered what was sent
        then.
        """
        self._socket = socket
        self._clock = clock
        self._contacted = contacted
        self._session = Session(Role.AGENT)
        self._slots = asyncio.Semaphore(TO_HUB.in_flight)
        self._outgoing: asyncio.Queue[bytes] = asyncio.Queue()
        self._open = True
        self.ping_interval_s = PING_INTERVAL_S

    async def request(self, message: Message, deadline_s: float = REQUEST_DEADLINE_S) -> Any:
        """Ask the hub and wait for its result.

        Raises RemoteError, LinkLost, DeadlineExceeded, LimitExceeded or ProtocolError, all of them
        WireErrors.
        """
        return await (await self.post(message, deadline_s))

    async def post(
        self, message: Message | Packed, deadline_s: float = REQUEST_DEADLINE_S
    ) -> asyncio.Future[Any]:
        """Send a request once a slot is free, and return the future of its answer."""
        await self._slots.acquire()
        try:
            return self._start(message, deadline_s)
        except BaseException:
            self._slots.release()
            raise

    async def serve(self, handle: Handler) -> None:
        """Serve the connection until it ends. Raises OrderedAway if the hub closes it with that
        order.
        """
        tasks = [
            asyncio.create_task(self._guarded(self._read(handle)), name="link reader"),
            asyncio.create_task(self._guarded(self._write()), name="link writer"),
            asyncio.create_task(self._guarded(self._ping()), name="link pinger"),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._lose()
        if self._socket.close_code == GO_AWAY_CLOSE_CODE:
            raise OrderedAway(self._socket.close_reason or "the hub closed the connection for good")

    async def close(
        self, code: int = 1000, reason: str = "", deadline_s: float = CLOSE_DEADLINE_S
    ) -> None:
        """Send what is queued, and close with a closing handshake. A peer that does not answer
        within the deadline is dropped.
        """
        # Not wait_for(): before Python 3.12 it swallows a cancellation that comes just as it ends.
        goodbye = asyncio.create_task(self._say_goodbye(code, reason), name="link goodbye")
        try:
            _, late = await asyncio.wait([goodbye], timeout=deadline_s)
            if late:
                self.abort()
        finally:
            goodbye.cancel()
            await asyncio.gather(goodbye, return_exceptions=True)

    async def _say_goodbye(self, code: int, reason: str) -> None:
        await self._outgoing.join()
        await self._socket.close(code, reason)

    def abort(self) -> None:
        """Drop the connection without a closing handshake, as the other end is believed dead."""
        self._socket.transport.abort()

    def _start(self, message: Message | Packed, deadline_s: float) -> asyncio.Future[Any]:
        if not self._open:
            raise LinkLost("the connection to the hub is lost")
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        pending: Optional[_Pending] = None

        def expire() -> None:
            self._session.abandon(pending)
            self._settle(answer, DeadlineExceeded(f"the hub did not answer {message.op} in time"))

        timer = self._clock.call_later(deadline_s, expire)
        pending = _Pending(answer, self._clock.now(), timer)
        try:
            self._outgoing.put_nowait(self._session.request(message, pending))
        except WireError:
            timer.cancel()
            raise
        answer.add_done_callback(lambda _: self._finish(pending))
        return answer

    def _finish(self, pending: _Pending) -> None:
        pending.timer.cancel()
        self._slots.release()
        if pending.answer.cancelled():
            self._session.abandon(pending)
        else:
            pending.answer.exception()  # whoever asked may be gone: nobody else needs to hear

    @staticmethod
    def _settle(answer: asyncio.Future[Any], outcome: Any) -> None:
        if answer.done():
            return
        if isinstance(outcome, Exception):
            answer.set_exception(outcome)
        else:
            answer.set_result(outcome)

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a task of the connection. What ends a connection is logged, and lets serve()
        return.
        """
        from websockets.exceptions import ConnectionClosed  # noqa: PLC0415 - loaded by then

        try:
            await work
        except ConnectionClosed:
            log.info("connection closed, code %s", self._socket.close_code)
        except LimitExceeded as error:
            await self._give_up(CLOSE_TOO_BIG, error)
        except ProtocolError as error:
            await self._give_up(CLOSE_PROTOCOL_ERROR, error)

    async def _give_up(self, code: int, error: WireError) -> None:
        log.error("giving up the connection: %s", error)
        # A close frame's reason has room for 123 bytes.
        await self.close(code, str(error).encode("ascii", "replace")[:100].decode())

    async def _read(self, handle: Handler) -> None:
        while True:
            frame = await self._socket.recv()
            if isinstance(frame, str):
                await self.close(CLOSE_UNSUPPORTED_DATA, "messages are binary")
                return
            event = self._session.receive(frame)
            if isinstance(event, Requested):
                await self._answer(event, handle)
            elif isinstance(event, Rejected):
                log.warning("rejected a request: %s", event.error)
                self._outgoing.put_nowait(event.frame)
            elif event is not None:
                self._receive_answer(event)
            if self._outgoing.qsize() > MAX_UNSENT_ANSWERS:
                await self.close(CLOSE_TRY_AGAIN, "answers are not being read")
                return

    def _receive_answer(self, event: Answered | Failed) -> None:
        pending = event.token
        assert isinstance(pending, _Pending)
        self._contacted(pending.sent_at)
        outcome = event.result if isinstance(event, Answered) else event.error
        self._settle(pending.answer, outcome)

    async def _answer(self, event: Requested, handle: Handler) -> None:
        try:
            frame = self._session.answer(event.seq_number, await handle(event.message))
        except Exception as error:  # noqa: BLE001 - a request's boundary: the hub is told, we go on
            log.warning("refused %s: %s", event.message.op, error)
            frame = self._session.refuse(event.seq_number, str(error) or type(error).__name__)
        self._outgoing.put_nowait(frame)

    async def _write(self) -> None:
        while True:
            frames = [await self._outgoing.get()]
            size_bytes = len(frames[0])
            while not self._outgoing.empty() and size_bytes < SENT_AT_ONCE_BYTES:
                frames.append(self._outgoing.get_nowait())
                size_bytes += len(frames[-1])
            await self._socket.send_all(frames)
            for _ in frames:
                self._outgoing.task_done()

    async def _ping(self) -> None:
        while True:
            await self._clock.sleep(self.ping_interval_s)
            sent_at = self._clock.now()
            pong = await self._socket.ping()
            timer = self._clock.call_later(PING_DEADLINE_S, self.abort)
            try:
                await pong
            finally:
                timer.cancel()
            self._contacted(sent_at)

    def _lose(self) -> None:
        self._open = False
        for pending in self._session.lose():
            assert isinstance(pending, _Pending)
            self._settle(pending.answer, LinkLost("the connection to the hub is lost"))
        # close() must not wait for what will never be sent.
        while not self._outgoing.empty():
            self._outgoing.get_nowait()
            self._outgoing.task_done()
