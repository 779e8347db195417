"""A stand-in for the hub, a clock that is advanced, and a daemon to try against them.

FakeHub is a real WebSocket server that speaks through wire.Session; it acknowledges everything,
unless a test holds its answers back.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Optional

import pytest
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from hostler_agent.commands.slots import AgentSlots
from hostler_agent.config import Config
from hostler_agent.wire import messages
from hostler_agent.wire.extension import AgentReport, Handshake, HubSettings
from hostler_agent.wire.session import Answered, Failed, Rejected, Requested, Role, Session

if TYPE_CHECKING:
    from websockets.http11 import Request, Response

    from hostler_agent.daemon import Daemon

PATIENCE_S = 60.0
"""What no test waits for longer; a machine that has much to do may stall for seconds."""

STOCK_SETTINGS = {
    "buffer_size": 65536,
    "buffer_timeout": 0.05,
    "newline_re": r"(\r\n|\r(?=.)|\033\[u|\033\[[0-9]+;[0-9]+[Hf]|\033\[2J|\x08+)",
    "max_line_length": 4096,
}


class VirtualClock:
    """Stands still until it is advanced; sleeping for nothing returns at once."""

    def __init__(self) -> None:
        self._now = 1000.0
        self._timers: list[tuple[float, int, _VirtualTimer]] = []
        self._order = itertools.count()
        self._added = asyncio.Event()

    def now(self) -> float:
        return self._now

    def awake(self) -> float:
        return self._now

    def wall(self) -> float:
        return 1_800_000_000.0 + self.now()

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken = asyncio.get_running_loop().create_future()
        timer = self.call_later(seconds, lambda: woken.done() or woken.set_result(None))
        try:
            await woken
        finally:
            timer.cancel()

    def call_later(self, seconds: float, call: Callable[[], object]) -> _VirtualTimer:
        timer = _VirtualTimer(call)
        heapq.heappush(self._timers, (self._now + seconds, next(self._order), timer))
        self._added.set()
        return timer

    def jump(self, seconds: float) -> None:
        """Time has passed, but nobody was awake to see it: the machine was suspended (A8)."""
        self._now += seconds

    async def advance(self, seconds: float) -> None:
        """Let time pass, and everybody do what they do meanwhile."""
        end = self._now + seconds
        await settle()
        while self._timers and self._timers[0][0] <= end:
            when, _, timer = heapq.heappop(self._timers)
            self._now = max(self._now, when)
            timer.fire()
            await settle()
        self._now = max(self._now, end)

    async def waiting(self, seconds: float) -> None:
        """Until something waits that will be due in that many seconds."""

        async def wait() -> None:
            while seconds not in self._waits():
                self._added.clear()
                await self._added.wait()

        await asyncio.wait_for(wait(), PATIENCE_S)

    def _waits(self) -> list[float]:
        return [round(when - self._now, 3) for when, _, timer in self._timers if timer.is_set]


class _VirtualTimer:
    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call
        self.is_set = True

    def cancel(self) -> None:
        self.is_set = False

    def fire(self) -> None:
        if self.is_set:
            self.is_set = False
            self._call()


async def settle() -> None:
    """Let every task run until it waits for something outside the event loop."""
    for _ in range(20):
        await asyncio.sleep(0)


class FakeHub:
    """`hostler` are the terms sent in the settings, None plays a stock Buildbot master.

    `refusals` are answered, in order, to the next handshakes: (status, headers).
    """

    def __init__(self, hostler: Optional[HubSettings]) -> None:
        self.hostler = hostler
        self.refusals: list[tuple[int, dict[str, str]]] = []
        self.handshakes: list[Handshake] = []
        self.updates: dict[str, list[list[Any]]] = defaultdict(list)
        self.completes: dict[str, list[Optional[str]]] = defaultdict(list)
        self.answer: Callable[[messages.Message], Any] = lambda _: None
        self.holds_answers = False
        self.sends_settings = True
        self._attached: asyncio.Queue[HubConnection] = asyncio.Queue()
        self._changed = asyncio.Event()
        self._server: Optional[Server] = None
        self._scheme = "ws"

    async def start(self, **options: Any) -> None:
        self._scheme = "wss" if "ssl" in options else "ws"
        self._server = await serve(
            self._serve, "127.0.0.1", 0, process_request=self._decide, compression=None, **options
        )

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        assert self._server is not None
        port = next(iter(self._server.sockets)).getsockname()[1]
        return f"{self._scheme}://127.0.0.1:{port}/api/v1/agents/connect"

    async def attached(self) -> HubConnection:
        """The next connection that has told its info and got its settings."""
        return await asyncio.wait_for(self._attached.get(), PATIENCE_S)

    async def until(self, is_so: Callable[[FakeHub], object]) -> None:
        """Waits until the hub has received what makes it so."""

        async def wait() -> None:
            while not is_so(self):
                self._changed.clear()
                await self._changed.wait()

        await asyncio.wait_for(wait(), PATIENCE_S)

    async def completed(self, command_id: str) -> Optional[str]:
        """Waits for a command's end: its failure, or None."""
        await self.until(lambda hub: hub.completes[command_id])
        return self.completes[command_id][-1]

    def receive(self, message: messages.Message) -> Any:
        if isinstance(message, messages.Update):
            self.updates[message.command_id].extend(message.args)
        elif isinstance(message, messages.Complete):
            self.completes[message.command_id].append(message.args)
        self._changed.set()
        return self.answer(message)

    def _decide(self, connection: ServerConnection, request: Request) -> Optional[Response]:
        self.handshakes.append(Handshake.parse(request.headers))
        self._changed.set()
        if not self.refusals:
            return None
        status, headers = self.refusals.pop(0)
        response = connection.respond(status, "refused\n")
        response.headers.update(headers)
        return response

    async def _serve(self, socket: ServerConnection) -> None:
        connection = HubConnection(self, socket)
        reader = asyncio.create_task(connection.read(), name="fake hub reader")
        try:
            if self.sends_settings:
                connection.info = await connection.request(messages.GetWorkerInfo())
                await connection.send_settings()
            self._attached.put_nowait(connection)
            await reader
        except ConnectionError:
            pass
        finally:
            reader.cancel()


class HubConnection:
    """The hub's end of one connection; `info` is what the agent told."""

    def __init__(self, hub: FakeHub, socket: ServerConnection) -> None:
        self.hub = hub
        self.socket = socket
        self.session = Session(Role.HUB)
        self.info: dict[str, Any] = {}
        self.held: list[int] = []

    @property
    def report(self) -> AgentReport:
        report = AgentReport.parse(self.info)
        assert report is not None
        return report

    async def request(self, message: messages.Message) -> Any:
        """The agent's result; raises RemoteError, or ConnectionError when it has gone."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        await self.socket.send(self.session.request(message, answer))
        return await asyncio.wait_for(answer, PATIENCE_S)

    async def send_settings(self) -> None:
        hostler = None if self.hub.hostler is None else self.hub.hostler.body()
        await self.request(messages.SetWorkerSettings(**STOCK_SETTINGS, hostler=hostler))

    async def start(self, command_id: str, command_name: str, **args: Any) -> None:
        await self.request(messages.StartCommand(command_id, command_name, args))

    async def interrupt(self, command_id: str) -> None:
        await self.request(messages.InterruptCommand(command_id, "a test wants it"))

    def cut(self) -> None:
        """Drop the connection without a goodbye."""
        self.socket.transport.abort()

    async def release(self) -> None:
        """Give the answers that were held back."""
        while self.held:
            await self.socket.send(self.session.answer(self.held.pop(0)))

    async def read(self) -> None:
        try:
            while True:
                await self._receive(await self.socket.recv(decode=False))
        except ConnectionClosed:
            for answer in self.session.lose():
                assert isinstance(answer, asyncio.Future)
                answer.set_exception(ConnectionError("the agent has gone"))

    async def _receive(self, frame: bytes) -> None:
        event = self.session.receive(frame)
        if isinstance(event, Requested):
            await self._answer(event)
        elif isinstance(event, Rejected):
            await self.socket.send(event.frame)
        elif isinstance(event, Answered):
            assert isinstance(event.token, asyncio.Future)
            event.token.set_result(event.result)
        elif isinstance(event, Failed):
            assert isinstance(event.token, asyncio.Future)
            event.token.set_exception(event.error)

    async def _answer(self, event: Requested) -> None:
        try:
            result = self.hub.receive(event.message)
        except LookupError as error:
            await self.socket.send(self.session.refuse(event.seq_number, str(error)))
            return
        if self.hub.holds_answers:
            self.held.append(event.seq_number)
        else:
            await self.socket.send(self.session.answer(event.seq_number, result))


@dataclass
class Agent:
    """A daemon that runs in this process."""

    daemon: Daemon
    task: asyncio.Task[None]
    containment: FakeContainment

    async def ended(self) -> None:
        """Waits until it has ended by itself."""
        await asyncio.wait_for(asyncio.shield(self.task), PATIENCE_S)


@dataclass
class FakeContainment:
    """For commands that start no process."""

    calls: list[str] = field(default_factory=list)
    name: str = "fake"
    root_name: str = "w1"

    def open(self, command_id: str) -> Any:
        raise NotImplementedError

    def warm_up(self) -> None:
        self.calls.append("warm_up")

    async def sweep(self) -> tuple[()]:
        self.calls.append("sweep")
        return ()

    async def aclose(self) -> None:
        self.calls.append("aclose")


class FakeSlots(AgentSlots):
    """Slots with users, as far as a daemon can tell: `ended` has the keys, or `all`."""

    have_users = True

    def __init__(self) -> None:
        super().__init__()
        self.ended: list[str] = []

    async def end(self, key: str, paths: Sequence[str]) -> list[str]:
        del paths
        self.ended.append(key)
        return []

    async def end_all(self) -> None:
        self.ended.append("all")

    async def aclose(self) -> None:
        self.ended.append("closed")


StartAgent = Callable[..., Awaitable[Agent]]


@pytest.fixture
def slots() -> FakeSlots:
    """For an agent whose builds have users of their own."""
    return FakeSlots()


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
async def start_hub() -> AsyncIterator[Callable[..., Awaitable[FakeHub]]]:
    """start_hub(terms or None, **options of websockets' serve)"""
    hubs: list[FakeHub] = []

    async def start(hostler: Optional[HubSettings], **options: Any) -> FakeHub:
        hubs.append(FakeHub(hostler))
        await hubs[-1].start(**options)
        return hubs[-1]

    yield start
    for hub in hubs:
        await hub.stop()


@pytest.fixture
async def hub(start_hub: Callable[..., Awaitable[FakeHub]]) -> FakeHub:
    """A hub of ours, with a lease of 300 s, that resumes nothing unless its terms are changed."""
    return await start_hub(HubSettings(lease_ttl_s=300))


@pytest.fixture
async def master(start_hub: Callable[..., Awaitable[FakeHub]]) -> FakeHub:
    """A stock Buildbot master."""
    return await start_hub(None)


@pytest.fixture
async def start_agent(tmp_path: Path, clock: VirtualClock) -> AsyncIterator[StartAgent]:
    """start_agent(hub, commands={name: class}, **config) starts a daemon; it ends with the test.
    `slots` may be others than those of an agent whose builds run as its own user.
    """
    from hostler_agent.daemon import Daemon, Surroundings, Toolbox

    agents: list[Agent] = []

    async def start(hub: FakeHub, commands: dict[str, Any], **options: Any) -> Agent:
        slots = options.pop("slots", None) or AgentSlots()
        config = Config(hub.url, "w1", "token", tmp_path / "work", **options)
        containment = FakeContainment()
        toolbox = Toolbox(
            commands, dict.fromkeys(commands, "1.0"), containment, slots, config.is_container
        )
        daemon = Daemon(config, toolbox, Surroundings(clock, random=lambda: 0.0))
        task = asyncio.create_task(daemon.run(), name="agent")
        agents.append(Agent(daemon, task, containment))
        return agents[-1]

    yield start
    for agent in agents:
        agent.daemon.stop()
        await asyncio.wait_for(agent.task, PATIENCE_S)
