"""The state of one command on an agent, as the agent's reports come in."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import structlog

from hostler_agent.wire import messages
from hostler_agent.wire.errors import ProtocolError
from hostler_agent.wire.extension import JOB_LOST, OUTPUT, RECEIPT, Output, Receipt
from hostler_agent.wire.fields import EXIT_CODE, nullable, take
from hostler_agent.wire.text import text_bytes
from hostler_hub.builds.artifacts.transfers import Transfer
from hostler_hub.builds.errors import TransferRefused
from hostler_hub.builds.logs import LogWriter
from hostler_hub.builds.states import StepOutcome
from hostler_hub.specs.printable import escape_controls
from hostler_hub.specs.states import StepState
from hostler_hub.store.errors import LogGap

_log = structlog.get_logger(__name__)

_COMPLETE_S = 5.0
_LOGGED = frozenset({OUTPUT, "stdout", "stderr", "header", "log"})
_TOLD = frozenset({"stat", "files"})
_SAID_BYTES = 1000
_STREAM_SIZE = 64
# How many pairs of an update are taken before others have their turn.
_PAIRS_AT_ONCE = 100
# How many streams' last words are kept.
_STREAMS_HEARD = 8


@dataclass
class CommandRun:
    """One command on an agent: it takes the agent's reports (as a CommandSink) and
    holds the outcome.

    ``base``: where the command's own output begins in the step's log, in bytes. ``listens``: keep
    the last line of its output, which says why one of the agent's own commands failed.
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
    logged: int = 0  # where the log ends with all output reported so far
    owed: int = 0  # the same at complete(): the log must reach this far
    rc: int | None = None
    failure_reason: str | None = None
    receipt: Receipt | None = None
    told: dict[str, Any] = field(default_factory=dict)
    said: dict[str, bytes] = field(default_factory=dict)
    _order: asyncio.Lock = field(default_factory=asyncio.Lock)  # updates are taken as they came
    # The outcome of a command that has ended after the hub interrupted it.
    interrupted: StepOutcome | None = None
    # The hub's own failure in this command, which counts for more than the agent's account of it.
    trouble: StepOutcome | None = None

    def result(self) -> StepOutcome:
        """The outcome of a command that is over. If the hub interrupted the command, it
        names the interruption.
        """
        return self.interrupted or self.outcome.result()

    @property
    def is_lost(self) -> bool:
        """Whether the agent does not know how the command ended, for no fault of the command's:
        whatever killed the process that started it may have been a neighbour.
        """
        lost = self.receipt is not None and self.receipt.ended == JOB_LOST
        return lost and self.interrupted is None

    async def update(self, pairs: Sequence[Sequence[Any]]) -> None:
        """Take an update; return when what it reports is durable. Raises ProtocolError, and takes
        nothing of it, if a value is none; LogGap if output before it is missing.

        The exit code becomes durable only with the outcome, which `complete` brings. If it
        were acknowledged earlier, an agent would not report it again to the next hub. Known
        peers complete a command without waiting for this answer; a peer that does wait is
        answered after ``_COMPLETE_S``.
        """
        appended: list[asyncio.Future[int]] = []
        async with self._order:
            # A flood waits for itself, and lets the others have their turn.
            parsed: list[tuple[str, Any]] = []
            async for some in _slices(pairs):
                parsed += [(key, _parsed(key, value)) for key, value in some]
            async for some in _slices(_joined(parsed)):
                if appended:
                    await appended[-1]
                for key, value in some:
                    if (write := self._take(key, value)) is not None:
                        appended.append(write)
        for write in appended:
            await write
        if any(key == "rc" for key, _ in pairs):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_COMPLETE_S):
                    await self.stored.wait()

    async def carry(self, message: messages.Message) -> Any:
        """Pass a message to the command's file transfer and return the
        answer. Raises ProtocolError.
        """
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
        """Take what ``_parsed`` has made of a pair."""
        if isinstance(value, Output):
            return None if self.log is None else self._append(self.log, key, value)
        if key == "rc":
            self.rc = value
        elif key == "failure_reason":
            self.failure_reason = value
        elif key == RECEIPT:
            self.receipt = value
        elif key in _TOLD:
            self.told[key] = value
        return None

    def _append(self, log: LogWriter, key: str, output: Output) -> asyncio.Future[int]:
        offset = self.base + output.offset if key == OUTPUT else None
        if self.listens and (output.stream in self.said or len(self.said) < _STREAMS_HEARD):
            said = self.said.get(output.stream, b"") + output.data
            self.said[output.stream] = said[-_SAID_BYTES:]
        try:
            stored = log.append(output.stream, output.data, offset)
        except LogGap as error:
            self.logged = error.offset + len(output.data)  # the log is to tell that it lacks them
            raise
        self.logged = log.end
        return stored

    async def complete(self, error: str | None) -> None:
        """Take the end of the command, with the agent's ``error`` if there is one. Returns, which
        acknowledges the end, when the outcome is durable (K9).
        """
        async with self._order:  # behind the updates that came before
            self.owed = self.logged
        if not self.outcome.done():
            self.outcome.set_result(self._judge(error))
        await self.stored.wait()

    def _judge(self, error: str | None) -> StepOutcome:
        if self.trouble is not None:
            return self.trouble
        # A stock worker completes a failed transfer with an error, after its rc.
        if error is not None and not (self.transfer and self.rc):
            return StepOutcome(StepState.EXCEPTION, self.rc, None, escape_controls(error[:1000]))
        if self.rc is None:
            text = "the agent reported neither an exit code nor an error"
            return StepOutcome(StepState.EXCEPTION, None, None, text)
        if self.rc == 0:
            return StepOutcome(StepState.SUCCESS, 0, self.failure_reason)
        return StepOutcome(StepState.FAILURE, self.rc, self.failure_reason, self._why())

    def _why(self) -> str | None:
        """Why the command failed, in the agent's words: the receipt's, else the last line of output
        that was kept; None if there is neither.
        """
        if self.receipt is not None and self.receipt.why:
            return escape_controls(self.receipt.why[:1000])
        for stream in ("stderr", "header"):
            lines = self.said.get(stream, b"").decode("utf-8", "replace").split("\n")
            for line in reversed(lines):
                if line.strip():
                    return escape_controls(line.strip())
        return None


async def _slices(pairs: Sequence[Any]) -> AsyncIterator[Sequence[Any]]:
    """The pairs, some at once, with a turn for others in between."""
    for start in range(0, len(pairs), _PAIRS_AT_ONCE):
        if start:
            await asyncio.sleep(0)
        yield pairs[start : start + _PAIRS_AT_ONCE]


def _parsed(key: str, value: Any) -> Any:
    """The value of an update's pair, in the type that its key has. Raises ProtocolError."""
    if key in _LOGGED:
        return _output_of(key, value)
    if key == "rc":
        code = take("update", {key: value}, key, nullable(EXIT_CODE))
        return -1 if code is None else code
    if key == "failure_reason":
        return str(value)[:200]
    return Receipt.parse(value) if key == RECEIPT else value


def _output_of(key: str, value: Any) -> Output:
    """The output in a pair of an update: of our own agent with its offset, of a stock worker with
    offset 0. Raises ProtocolError.
    """
    if key == OUTPUT:
        output = Output.parse(value)
        return replace(output, stream=output.stream[:_STREAM_SIZE])
    if key != "log":
        return Output(key, 0, text_bytes(value))
    if not isinstance(value, (list, tuple)) or len(value) != 2 or not isinstance(value[0], str):
        raise ProtocolError("update: the value of 'log' must be [name, text]")
    return Output(value[0][:_STREAM_SIZE], 0, text_bytes(value[1]))


def _joined(reports: Iterable[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """The same reports, with consecutive texts of a stream in one: a stock worker sends lines one
    by one, and each report that is left is a row of the store.
    """
    joined: list[tuple[str, Any]] = []
    for same, group in itertools.groupby(reports, _stream_of):
        texts = list(group)
        if same is None or len(texts) == 1:
            joined += texts
        else:
            key, first = texts[0]
            data = b"".join(output.data for _, output in texts)
            joined.append((key, replace(first, data=data)))
    return joined


def _stream_of(report: tuple[str, Any]) -> str | None:
    """The stream of a text without an offset, else None."""
    key, value = report
    return value.stream if isinstance(value, Output) and key != OUTPUT else None


def survivors(receipt: Receipt | None) -> tuple[str, ...]:
    """The surviving processes that a receipt names, each as "NAME (PID)".

    Unprintable characters become "?", because a process may choose its name to mislead the reader.
    """
    left = () if receipt is None else receipt.survivors
    return tuple(f"{_printable(one.name[:64])} ({one.pid})" for one in left)


def _printable(name: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in name)
