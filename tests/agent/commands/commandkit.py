"""What the tests of commands share."""

from __future__ import annotations

import asyncio
import tarfile
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, Callable, Optional

from hostler_agent.clock import Timer
from hostler_agent.commands import COMMANDS, Settings
from hostler_agent.commands.masking import Mask
from hostler_agent.commands.slots import AgentSlots, Slots
from hostler_agent.jobs import Containment
from hostler_agent.wire import codec, limits, messages
from hostler_agent.wire.errors import RemoteError
from hostler_agent.wire.extension import CommandTerms
from hostler_agent.wire.text import text_bytes


@dataclass
class RecordingContext:
    """See commands.Context. `answers` are what update_read_file gets, one after the other; an
    exception among them is raised. `refuse` names an operation that the hub refuses."""

    containment: Containment
    workdir: str
    terms: Optional[CommandTerms] = None
    mask: Optional[Mask] = None
    command_id: str = "1"
    settings: Settings = field(default_factory=Settings)
    updates: list[list[list[Any]]] = field(default_factory=list)
    requests: list[Any] = field(default_factory=list)
    answers: list[Any] = field(default_factory=list)
    refuse: str = ""
    taking: asyncio.Event = field(default_factory=asyncio.Event)
    slots: Slots = field(default_factory=AgentSlots)
    slot_key: Optional[str] = "lease"

    def __post_init__(self) -> None:
        self.taking.set()
        self._news = asyncio.Condition()

    @property
    def raw(self) -> bool:
        return self.terms is not None

    async def update(self, pairs: list[list[Any]]) -> None:
        # What the wire refuses must never be produced.
        message = {"op": "update", "seq_number": 1, "command_id": self.command_id, "args": pairs}
        codec.decode(codec.encode(message), limits.TO_HUB)
        async with self._news:
            self.updates.append(pairs)
            self._news.notify_all()
        await self.taking.wait()

    async def request(self, message: Any) -> Any:
        codec.decode(codec.encode({"op": message.op, **message.body()}), limits.TO_HUB)
        self.requests.append(message)
        if message.op == self.refuse:
            raise RemoteError("the disk is full")
        if isinstance(message, messages.UpdateReadFile):
            answer = self.answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer
        return None

    async def first(self) -> None:
        """Returns when there is an update."""
        async with self._news:
            await self._news.wait_for(lambda: bool(self.updates))

    async def until(self, text: str) -> None:
        async with self._news:
            await self._news.wait_for(lambda: text in self.text("stdout"))

    @property
    def pairs(self) -> list[tuple[str, Any]]:
        return [(name, value) for update in self.updates for name, value in update]

    def value(self, name: str) -> Any:
        """Of the pair of that name, which must be there once."""
        (value,) = [value for one, value in self.pairs if one == name]
        return value

    def has(self, name: str) -> bool:
        return name in [one for one, _value in self.pairs]

    def data(self, stream: str) -> bytes:
        if self.raw:
            parts = [value for name, value in self.pairs if name == "output"]
            return b"".join(part["data"] for part in parts if part["stream"] == stream)
        return b"".join(text_bytes(value) for name, value in self.pairs if name == stream)

    def text(self, stream: str) -> str:
        return self.data(stream).decode()

    def log(self, name: str) -> str:
        logs = [value for one, value in self.pairs if one == "log"]
        return b"".join(text_bytes(content) for one, content in logs if one == name).decode()

    def sent(self) -> bytes:
        """The chunks of an upload."""
        writes = (messages.UpdateUploadFileWrite, messages.UpdateUploadDirectoryWrite)
        return b"".join(one.args for one in self.requests if isinstance(one, writes))

    def operations(self) -> list[str]:
        """Without repetitions."""
        return list(dict.fromkeys(one.op for one in self.requests))

    def archive(self) -> tarfile.TarFile:
        return tarfile.open(fileobj=BytesIO(self.sent()))


class StandingClock:
    """No limit of a command runs out unless a test says so; see clock.Clock."""

    def __init__(self) -> None:
        self._ends: list[Callable[[], None]] = []
        self._begun = asyncio.Event()

    def now(self) -> float:
        return 1000.0

    def awake(self) -> float:
        return 1000.0

    def wall(self) -> float:
        return 1.7e9

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("commands wait by timers")

    def call_later(self, _seconds: float, callback: Callable[[], None]) -> Timer:
        self._ends.append(callback)
        self._begun.set()
        return _StandingTimer(self._ends, callback)

    async def end_all(self) -> None:
        """The time of whatever is limited is over, as soon as something is."""
        await self._begun.wait()
        for callback in self._ends[:]:
            callback()


@dataclass
class _StandingTimer:
    ends: list[Callable[[], None]]
    callback: Callable[[], None]

    def cancel(self) -> None:
        if self.callback in self.ends:
            self.ends.remove(self.callback)


async def run(context: RecordingContext, name: str, clock: Any = None, **args: Any) -> int:
    """Runs a command; its `rc`."""
    await COMMANDS[name](context, args, clock).run()
    assert context.has("elapsed")
    return context.value("rc")
