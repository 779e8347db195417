"""A small master: it gives commands to whatever worker attaches, and looks how they fare.

The same master drives our agent, as a stock Buildbot master would or as our hub would (raw), and a
stock buildbot-worker, so that what differs is the worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from benchmarks.processes import START_S, BenchmarkFailed
from hostler_agent.wire import credentials, extension, messages
from hostler_agent.wire.limits import MEBIBYTE, MessageLimits
from hostler_agent.wire.session import Answered, Failed, Rejected, Requested, Role, Session

_NEWLINES = r"(\r\n|\r(?=.)|\033\[u|\033\[[0-9]+;[0-9]+[Hf]|\033\[2J|\x08+)"

# Those of a stock master, and those of our hub.
_STOCK = messages.SetWorkerSettings(65536, 5, _NEWLINES, 4096)
_RAW = messages.SetWorkerSettings(
    65536, 0.25, _NEWLINES, 4096, extension.HubSettings(lease_ttl_s=300).body()
)

# A stock worker sends as much as it likes, and what it sends is to be measured, not refused.
_ANYTHING = MessageLimits(message_size_bytes=512 * MEBIBYTE, items=1 << 30, in_flight=1 << 20)

DEADLINE_S = 180.0
SAID = 4096


@dataclass(eq=False)
class Command:
    """One that was started, and what came of it; its output is taken to be ASCII."""

    command_id: str
    size_bytes: int = 0
    said: str = ""
    """the beginning of its output"""
    rc: int | None = None
    receipt: dict[str, Any] | None = None
    refusal: object = None
    heard: asyncio.Event = field(default_factory=asyncio.Event)
    """set by the first of its output"""
    completed: asyncio.Event = field(default_factory=asyncio.Event)

    async def end(self, deadline_s: float = DEADLINE_S) -> None:
        """Raises TimeoutError, and BenchmarkFailed for one that could not be run."""
        await asyncio.wait_for(self.completed.wait(), deadline_s)
        if self.refusal is not None:
            raise BenchmarkFailed(f"a command could not be run: {self.refusal}")

    def receive(self, pairs: Sequence[Sequence[Any]]) -> None:
        for name, value in pairs:
            if name == "stdout":
                self._hear(value[0])
            elif name == "output" and value["stream"] == "stdout":
                self._hear(value["data"])
            elif name == "rc":
                self.rc = value
            elif name == "receipt":
                self.receipt = value

    def _hear(self, output: str | bytes) -> None:
        self.size_bytes += len(output)
        if len(self.said) < SAID:
            begin = output[:SAID]
            self.said += begin if isinstance(begin, str) else begin.decode("ascii", "replace")
        self.heard.set()


class Worker:
    """One that is attached. `pace` (bytes per second), when set, is how fast it is read."""

    def __init__(self, socket: ServerConnection, *, raw: bool) -> None:
        self.pace: float | None = None
        self._socket = socket
        self.raw = raw
        self._session = Session(Role.HUB, _ANYTHING, _ANYTHING)
        self._commands: dict[str, Command] = {}
        self._numbers = itertools.count()

    async def attach(self) -> None:
        await self.ask(messages.GetWorkerInfo())
        await self.ask(_RAW if self.raw else _STOCK)

    async def ask(self, message: messages.Message, deadline_s: float = DEADLINE_S) -> Any:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        await self._socket.send(self._session.request(message, answer))
        return await asyncio.wait_for(answer, deadline_s)

    async def start(self, argv: Sequence[str], env: dict[str, str] | None = None) -> Command:
        command = Command(f"c{next(self._numbers)}-{secrets.token_hex(4)}")
        self._commands[command.command_id] = command
        args: dict[str, Any] = {"command": list(argv), "workdir": "/tmp", "env": env or {}}
        args |= {"logEnviron": False, "timeout": DEADLINE_S}
        if self.raw:
            args[extension.NAME] = extension.CommandTerms(secrets.token_hex(8), 1).body()
        await self.ask(messages.StartCommand(command.command_id, "shell", args))
        return command

    async def run(self, argv: Sequence[str], env: dict[str, str] | None = None) -> Command:
        """Raises BenchmarkFailed unless it ends well."""
        command = await self.start(argv, env)
        await command.end()
        if command.rc != 0:
            raise BenchmarkFailed(f"{argv[0]} ended with {command.rc}")
        return command

    async def interrupt(self, command: Command) -> float:
        """Seconds from the order to its answer."""
        began_at = time.perf_counter()
        await self.ask(messages.InterruptCommand(command.command_id, "a benchmark wants it"))
        return time.perf_counter() - began_at

    def cut(self) -> None:
        """Drops the connection without a word."""
        self._socket.transport.abort()

    async def read(self) -> None:
        """Until the connection ends."""
        try:
            while True:
                frame = await self._socket.recv(decode=False)
                if self.pace is not None:
                    await asyncio.sleep(len(frame) / self.pace)
                await self._receive(frame)
        except ConnectionClosed:
            for answer in self._session.lose():
                assert isinstance(answer, asyncio.Future)
                if not answer.done():
                    answer.set_exception(BenchmarkFailed("a worker is gone"))
                    answer.exception()  # nobody may be left to ask

    async def _receive(self, frame: bytes) -> None:
        event = self._session.receive(frame)
        if isinstance(event, Requested):
            self._take(event.message)
            await self._socket.send(self._session.answer(event.seq_number))
        elif isinstance(event, Rejected):
            await self._socket.send(event.frame)
        elif event is not None:
            _settle(event)

    def _take(self, message: messages.Message) -> None:
        if isinstance(message, messages.Update):
            self._commands[message.command_id].receive(message.args)
        elif isinstance(message, messages.Complete):
            command = self._commands.pop(message.command_id)
            command.refusal = message.args
            command.completed.set()


class Master:
    """Listens on this machine; a worker is known by its name, and shows the password."""

    def __init__(self) -> None:
        self.password = secrets.token_hex(16)
        self.run = secrets.token_hex(4)
        self._raw: dict[str, bool] = {}
        self._attached: dict[str, asyncio.Queue[Worker]] = {}
        self._server: Server | None = None

    @property
    def port(self) -> int:
        assert self._server is not None
        port: int = next(iter(self._server.sockets)).getsockname()[1]
        return port

    def expect(self, name: str, *, raw: bool = False) -> None:
        """A worker of that name may come; `raw`: it is ours, and we play its hub."""
        self._raw[name] = raw
        self._attached[name] = asyncio.Queue()

    async def attached(self, name: str) -> Worker:
        """The next worker of that name."""
        try:
            return await asyncio.wait_for(self._attached[name].get(), START_S)
        except TimeoutError:
            raise BenchmarkFailed(f"worker {name} did not attach") from None

    async def serve(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        name, _password = credentials.decode_basic(socket.request.headers["Authorization"])
        worker = Worker(socket, raw=self._raw[name])
        reader = asyncio.create_task(worker.read(), name=f"reader of {name}")
        try:
            await worker.attach()
            self._attached[name].put_nowait(worker)
            await reader
        finally:
            reader.cancel()

    def decide(self, connection: ServerConnection, request: Request) -> Response | None:
        name, password = credentials.decode_basic(request.headers["Authorization"])
        if name in self._raw and secrets.compare_digest(password, self.password):
            return None
        return connection.respond(401, "unknown\n")

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[Master]:
        # asyncio turns Nagle's algorithm off by itself.
        async with serve(
            self.serve,
            "127.0.0.1",
            0,
            process_request=self.decide,
            compression=None,
            max_size=None,
            ping_interval=None,
            close_timeout=1,
        ) as self._server:
            yield self


def _settle(event: Answered | Failed) -> None:
    answer = event.token
    assert isinstance(answer, asyncio.Future)
    if answer.done():
        return
    if isinstance(event, Failed):
        answer.set_exception(event.error)
    else:
        answer.set_result(event.result)
