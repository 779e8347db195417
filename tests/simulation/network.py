"""The network between agents and hub: WebSockets without sockets, which can be cut and delayed.

An agent's end is what the agent takes from the ``websockets`` library; the hub's end is an ASGI
application's receive and send, as uvicorn would call them, pings included. In between are two
queues of frames. A *cut* connection loses everything and says nothing (a NAT that forgot it); a
*partitioned* machine's frames wait, as TCP's do, and arrive when the partition ends, if anybody is
still there.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from simulation.loop import Process, VirtualLoop, outside
from starlette.websockets import WebSocket
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK, InvalidStatus
from websockets.frames import Close
from websockets.http11 import Response

if TYPE_CHECKING:
    from hostler_hub.web.hub import Hub

OPEN_S = 30.0
ABNORMAL = 1006


@dataclass
class Network:
    """Who can be reached. ``hub`` is set while one listens."""

    loop: VirtualLoop
    random: random.Random
    shortest_s: float = 0.0005
    longest_s: float = 0.003
    hub: Hub | None = None
    hub_process: Process | None = None
    ping_interval_s: float = 20.0
    ping_timeout_s: float = 20.0
    partitioned: dict[str, None] = field(default_factory=dict)  # machines, by instance
    connections: list[Connection] = field(default_factory=list)
    pings: list[tuple[float, str]] = field(default_factory=list)  # when, from which process
    on_accept: Callable[[Connection], None] = lambda _: None

    def listen(self, hub: Hub, process: Process) -> None:
        self.hub, self.hub_process = hub, process
        process.deaths.append(lambda: self.unlisten(process))

    def unlisten(self, process: Process) -> None:
        if self.hub_process is process:
            self.hub = self.hub_process = None

    def delay_s(self) -> float:
        return self.random.uniform(self.shortest_s, self.longest_s)

    def of(self, machine: str) -> list[Connection]:
        """The machine's open connections, oldest first."""
        return [each for each in self.connections if each.machine == machine and each.lives]

    def partition(self, machine: str) -> None:
        self.partitioned[machine] = None

    def heal(self, machine: str) -> None:
        self.partitioned.pop(machine, None)
        for connection in self.connections:
            if connection.machine == machine:
                connection.flush()
        self.connections = [each for each in self.connections if each.lives]

    async def dial(self, machine: str, agent: Process, headers: dict[str, str]) -> AgentEnd:
        """What the agent's link calls: the opened connection, or the library's errors."""
        await asyncio.sleep(self.delay_s())
        if machine in self.partitioned:
            await asyncio.sleep(OPEN_S)
            raise TimeoutError("the handshake timed out")
        if self.hub is None or self.hub_process is None:
            raise ConnectionRefusedError(111, "connection refused")
        connection = Connection(self, machine, agent, self.hub_process)
        self.connections.append(connection)
        connection.open(self.hub, headers)
        async with asyncio.timeout(OPEN_S):
            return await connection.answered


class Connection:
    """One WebSocket: ``cut()`` makes it half-open, for ever."""

    def __init__(self, network: Network, machine: str, agent: Process, hub: Process) -> None:
        self.network = network
        self.loop = network.loop
        self.machine = machine
        self.lost = False
        self.answered: asyncio.Future[AgentEnd] = self.loop.create_future()
        self.agent = AgentEnd(self, agent)
        self.hub = HubEnd(self, hub)
        self._held: list[tuple[Process, Callable[..., None], tuple[Any, ...]]] = []
        self._last_at = {agent: 0.0, hub: 0.0}
        agent.deaths.append(lambda: self.carry(hub, self.hub.closed_by_peer, ABNORMAL, ""))
        hub.deaths.append(lambda: self.carry(agent, self.agent.closed_by_peer, ABNORMAL, ""))

    @property
    def lives(self) -> bool:
        return self.agent.close_code is None or self.hub.close_code is None

    def cut(self) -> None:
        """Nothing arrives any more, in neither direction, and nobody is told."""
        self.lost = True

    def open(self, hub: Hub, headers: dict[str, str]) -> None:
        with outside():
            self.hub.process.spawn(self.hub.serve(hub, headers), f"websocket of {self.machine}")

    def carry(self, to: Process, deliver: Callable[..., None], *args: Any) -> None:
        """Deliver to an end, in order and after a while, in the process that it belongs to."""
        if self.lost:
            return
        if self.machine in self.network.partitioned:
            self._held.append((to, deliver, args))
            return
        # Timers of one instant come in any order; frames do not.
        at = max(self._last_at[to] + 1e-5, self.loop.now + self.network.delay_s())
        self._last_at[to] = at
        with outside():
            self.loop.call_at(at - to.asleep_s, deliver, *args, context=to.context.copy())

    def flush(self) -> None:
        held, self._held = self._held, []
        for to, deliver, args in held:
            self.carry(to, deliver, *args)


class _Transport:
    def __init__(self, abort: Callable[[], None]) -> None:
        self.abort = abort


class AgentEnd:
    """What the agent uses of websockets' ClientConnection."""

    def __init__(self, connection: Connection, process: Process) -> None:
        self.process = process
        self.close_code: int | None = None
        self.close_reason = ""
        self.transport = _Transport(lambda: self._close(ABNORMAL, ""))
        self._connection = connection
        self._frames: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._pings: list[asyncio.Future[float]] = []

    async def recv(self) -> bytes:
        frame = None
        if self.close_code is None or not self._frames.empty():
            frame = await self._frames.get()
        if frame is None:
            self._frames.put_nowait(None)
            raise self._closed()
        return frame

    async def send(self, frame: bytes) -> None:
        if self.close_code is not None:
            raise self._closed()
        hub = self._connection.hub
        self._connection.carry(hub.process, hub.receive_frame, frame)

    async def send_all(self, frames: Sequence[bytes]) -> None:
        for frame in frames:
            await self.send(frame)

    async def ping(self) -> asyncio.Future[float]:
        if self.close_code is not None:
            raise self._closed()
        pong: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._pings.append(pong)
        hub = self._connection.hub
        self._connection.network.pings.append((self._connection.loop.now, self.process.name))
        self._connection.carry(hub.process, hub.receive_ping, pong)
        return pong

    async def close(self, code: int = 1000, reason: str = "") -> None:
        if self.close_code is not None:
            return
        hub = self._connection.hub
        self._connection.carry(hub.process, hub.closed_by_peer, code, reason)
        self._end(code, reason)

    def receive_frame(self, frame: bytes) -> None:
        if self.close_code is None:
            self._frames.put_nowait(frame)

    def receive_ping(self) -> None:
        """The library answers by itself, as long as the process runs."""
        if self.close_code is None:
            hub = self._connection.hub
            self._connection.carry(hub.process, hub.receive_pong)

    def receive_pong(self, pong: asyncio.Future[float]) -> None:
        if pong in self._pings:
            self._pings.remove(pong)
            if not pong.done():
                pong.set_result(0.0)

    def closed_by_peer(self, code: int, reason: str) -> None:
        if self.close_code is None:
            self._end(code, reason)

    def _close(self, code: int, reason: str) -> None:
        if self.close_code is None:
            hub = self._connection.hub
            self._connection.carry(hub.process, hub.closed_by_peer, ABNORMAL, "")
            self._end(code, reason)

    def _end(self, code: int, reason: str) -> None:
        self.close_code, self.close_reason = code, reason
        self._frames.put_nowait(None)
        for pong in self._pings:
            if not pong.done():
                pong.set_exception(self._closed())
                pong.exception()

    def _closed(self) -> Exception:
        if self.close_code in {1000, 1001}:
            close = Close(self.close_code, self.close_reason)
            return ConnectionClosedOK(close, close)
        if self.close_code in {None, ABNORMAL}:
            return ConnectionClosedError(None, None)
        return ConnectionClosedError(Close(self.close_code, self.close_reason), None)


class HubEnd:
    """What uvicorn would do for the hub's ASGI application."""

    def __init__(self, connection: Connection, process: Process) -> None:
        self.process = process
        self.close_code: int | None = None
        self._connection = connection
        self._events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._accepted = False
        self._refusal: dict[str, Any] | None = None
        self._pong = asyncio.Event()
        self._keepalive: asyncio.Task[None] | None = None

    async def serve(self, hub: Hub, headers: dict[str, str]) -> None:
        pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        scope = {
            "type": "websocket",
            "path": "/api/v1/agents/connect",
            "headers": pairs,
            "client": (self._connection.machine, 1),
            "subprotocols": [],
            "extensions": {"websocket.http.response": {}},
        }
        self._events.put_nowait({"type": "websocket.connect"})
        try:
            await hub.agents.serve(WebSocket(scope, self._events.get, self._send))
        finally:
            if self._keepalive is not None:
                self._keepalive.cancel()
            self._close(1011 if self._accepted else ABNORMAL, "")

    def receive_frame(self, frame: bytes) -> None:
        if self.close_code is None:
            self._events.put_nowait({"type": "websocket.receive", "bytes": frame})

    def receive_ping(self, pong: asyncio.Future[float]) -> None:
        if self.close_code is None:
            agent = self._connection.agent
            self._connection.carry(agent.process, agent.receive_pong, pong)

    def receive_pong(self) -> None:
        self._pong.set()

    def closed_by_peer(self, code: int, reason: str) -> None:
        if self.close_code is None:
            self.close_code = code
            self._events.put_nowait(
                {"type": "websocket.disconnect", "code": code, "reason": reason}
            )

    async def _send(self, message: Any) -> None:
        kind = message["type"]
        if self.close_code is not None:
            if kind == "websocket.send":
                raise OSError("the connection is closed")
        elif kind == "websocket.accept":
            self._accept()
        elif kind == "websocket.send":
            agent = self._connection.agent
            self._connection.carry(agent.process, agent.receive_frame, message["bytes"])
        elif kind == "websocket.close":
            self._close(message.get("code", 1000), message.get("reason") or "")
        elif kind == "websocket.http.response.start":
            self._refusal = message
        elif kind == "websocket.http.response.body":
            self._refuse()

    def _accept(self) -> None:
        self._accepted = True
        self._connection.network.on_accept(self._connection)
        self._connection.carry(self._connection.agent.process, self._answer, None)
        keepalive = self._keep_alive()
        self._keepalive = asyncio.create_task(keepalive, name="websocket keepalive")

    def _refuse(self) -> None:
        assert self._refusal is not None
        headers = Headers([(k.decode(), v.decode()) for k, v in self._refusal.get("headers", [])])
        response = Response(self._refusal["status"], "refused", headers)
        self.close_code = ABNORMAL
        agent = self._connection.agent
        self._connection.carry(agent.process, self._answer, InvalidStatus(response))
        agent.close_code = ABNORMAL

    def _answer(self, error: Exception | None) -> None:
        answered = self._connection.answered
        if answered.done():
            return
        if error is None:
            answered.set_result(self._connection.agent)
        else:
            answered.set_exception(error)

    def _close(self, code: int, reason: str) -> None:
        if self.close_code is None:
            self.close_code = code
            self._events.put_nowait(
                {"type": "websocket.disconnect", "code": code, "reason": reason}
            )
            agent = self._connection.agent
            if not self._connection.answered.done():
                error = ConnectionResetError("connection reset")
                self._connection.carry(agent.process, self._answer, error)
            self._connection.carry(agent.process, agent.closed_by_peer, code, reason)

    async def _keep_alive(self) -> None:
        network, agent = self._connection.network, self._connection.agent
        while self.close_code is None:
            await asyncio.sleep(network.ping_interval_s)
            self._pong.clear()
            network.pings.append((network.loop.now, self.process.name))
            self._connection.carry(agent.process, agent.receive_ping)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(network.ping_timeout_s):
                    await self._pong.wait()
                continue
            self._close(1011, "keepalive ping timeout")
