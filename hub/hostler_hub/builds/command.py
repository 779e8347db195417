"""One command on an agent, as its reports come in."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from hostler_agent.wire import messages
from hostler_agent.wire.errors import ProtocolError
from hostler_agent.wire.extension import OUTPUT, RECEIPT, Output, Receipt
from hostler_agent.wire.text import text_bytes
from hostler_hub.builds.artifacts.transfers import Transfer
from hostler_hub.builds.errors import TransferRefused
from hostler_hub.builds.logs import LogWriter
from hostler_hub.builds.states import StepOutcome
from hostler_hub.specs.states import StepState

_log = structlog.get_logger(__name__)

_COMPLETE_S = 5.0
_LOGGED = frozenset({OUTPUT, "stdout", "stderr", "header", "log"})
_TOLD = frozenset({"stat", "files"})
_SAID_BYTES = 1000


@dataclass
class CommandRun:
    """One command as its reports come in (the agents' CommandSink).

    ``base`` is where the command's own log begins in the step's. ``listens``: the last line it said
    is kept, which is why it failed when it is no program but one of the agent's own commands.
    """

    instance: str
    log: LogWriter | None  # None: nobody reads its output, only its end counts
    base: int = 0
    transfer: Transfer | None = None
    listens: bool = False
    outcome: asyncio.Future[StepOutcome] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    stored: asyncio.Event = field(default_factory=asyncio.Event)
    logged: int = 0  # where the log ends with all that the agent has said
    owed: int = 0  # the same once it said that this was all: it says it again until it is stored
    rc: int | None = None
    failure_reason: str | None = None
    receipt: Receipt | None = None
    told: dict[str, Any] = field(default_factory=dict)
    said: dict[str, bytes] = field(default_factory=dict)
    # The outcome of a command that has ended after the hub interrupted it.
    interrupted: StepOutcome | None = None
    # The hub's own failure in this command, which counts for more than the agent's account of it.
    trouble: StepOutcome | None = None

    def result(self) -> StepOutcome:
        """The outcome of a command that is over; of an interrupted one, the hub's account of it."""
        return self.interrupted or self.outcome.result()

    async def update(self, pairs: Sequence[Sequence[Any]]) -> None:
        """Take an update; returns when what it said is durable.

        The exit code is durable with the outcome only, which `complete` brings. Were it
        acknowledged before, an agent would not tell it again to the next hub. Known peers do not
        wait for the answer before they complete; one that does waits a little.
        """
        appended = [self._take(key, value) for key, value in pairs]
        for write in appended:
            if write is not None:
                await write
        if any(key == "rc" for key, _ in pairs):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_COMPLETE_S):
                    await self.stored.wait()

    async def carry(self, message: messages.Message) -> Any:
        """A message of the command's file transfer; its answer. Raises ProtocolError."""
        if self.transfer is None:
            raise ProtocolError(f"{message.op}: the command was given no file to transfer")
        try:
            return await self.transfer.take(message)
        except TransferRefused as error:
            self.trouble = StepOutcome(StepState.FAILURE, None, None, str(error)[:1000])
            raise ProtocolError(str(error)) from error
        except OSError as error:
            _log.exception("a file transfer failed in the hub", op=message.op)
            text = f"the hub's disk: {error.strerror or error}"
            self.trouble = StepOutcome(StepState.EXCEPTION, None, None, text)
            raise ProtocolError(text) from error

    def _take(self, key: str, value: Any) -> asyncio.Future[int] | None:
        if self.log is not None and key in _LOGGED:
            return self._append(self.log, key, value)
        if key == "rc":
            self.rc = value if isinstance(value, int) else -1
        elif key == "failure_reason":
            self.failure_reason = str(value)[:200]
        elif key == RECEIPT:
            self.receipt = Receipt.parse(value)
        elif key in _TOLD:
            self.told[key] = value
        return None

    def _append(self, log: LogWriter, key: str, value: Any) -> asyncio.Future[int]:
        if key == OUTPUT:
            output = Output.parse(value)
            stream, data, offset = output.stream, output.data, self.base + output.offset
        elif key == "log":
            if not isinstance(value, (list, tuple)) or len(value) != 2:
                raise ProtocolError("update: the value of 'log' must be [name, text]")
            name, content = value
            stream, data, offset = str(name)[:64], text_bytes(content), None
        else:
            stream, data, offset = key, text_bytes(value), None
        if self.listens:
            self.said[stream] = (self.said.get(stream, b"") + data)[-_SAID_BYTES:]
        stored = log.append(stream, data, offset)
        self.logged = log.end
        return stored

    async def complete(self, error: str | None) -> None:
        """The command is over; acknowledged when its outcome is durable (K9)."""
        self.owed = self.logged
        if not self.outcome.done():
            self.outcome.set_result(self._judge(error))
        await self.stored.wait()

    def _judge(self, error: str | None) -> StepOutcome:
        if self.trouble is not None:
            return self.trouble
        # A stock worker completes a failed transfer with an error, after its rc.
        if error is not None and not (self.transfer and self.rc):
            return StepOutcome(StepState.EXCEPTION, self.rc, None, error[:1000])
        if self.rc is None:
            text = "the agent reported neither an exit code nor an error"
            return StepOutcome(StepState.EXCEPTION, None, None, text)
        if self.rc == 0:
            return StepOutcome(StepState.SUCCESS, 0, self.failure_reason)
        return StepOutcome(StepState.FAILURE, self.rc, self.failure_reason, self._why())

    def _why(self) -> str | None:
        """In the agent's own words: the receipt's, or those of a command that is no program."""
        if self.receipt is not None and self.receipt.why:
            return self.receipt.why[:1000]
        for stream in ("stderr", "header"):
            lines = self.said.get(stream, b"").decode("utf-8", "replace").split("\n")
            for line in reversed(lines):
                if line.strip():
                    return line.strip()
        return None


def survivors(receipt: Receipt | None) -> tuple[str, ...]:
    """Whom a receipt names; a process may have chosen its name to impress whoever reads it."""
    left = () if receipt is None else receipt.survivors
    return tuple(f"{_printable(one.name[:64])} ({one.pid})" for one in left)


def _printable(name: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in name)
