"""One command on an agent, as its reports come in."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hostler_agent.wire.extension import OUTPUT, RECEIPT, Output, Receipt
from hostler_agent.wire.text import text_bytes
from hostler_hub import course
from hostler_hub.course import StepOutcome
from hostler_hub.logs import LogWriter

_LOGGED = frozenset({OUTPUT, "stdout", "stderr", "header", "log"})


@dataclass
class CommandRun:
    """One command as its reports come in (the agents' CommandSink)."""

    instance: str
    log: LogWriter | None  # None: nobody reads its output, only its end counts
    outcome: asyncio.Future[StepOutcome] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    stored: asyncio.Event = field(default_factory=asyncio.Event)
    rc: int | None = None
    failure_reason: str | None = None
    receipt: Receipt | None = None

    async def update(self, pairs: Sequence[Sequence[Any]]) -> None:
        """Take an update; returns when what it said of the log is durable."""
        appended = [self._take(key, value) for key, value in pairs]
        for write in appended:
            if write is not None:
                await write

    def _take(self, key: str, value: Any) -> asyncio.Future[int] | None:
        if self.log is not None and key in _LOGGED:
            return _append(self.log, key, value)
        if key == "rc":
            self.rc = value if isinstance(value, int) else -1
        elif key == "failure_reason":
            self.failure_reason = str(value)[:200]
        elif key == RECEIPT:
            self.receipt = Receipt.parse(value)
        return None

    async def complete(self, error: str | None) -> None:
        """The command is over; acknowledged when its outcome is durable (K9)."""
        if not self.outcome.done():
            self.outcome.set_result(self._judge(error))
        await self.stored.wait()

    def _judge(self, error: str | None) -> StepOutcome:
        clean = self.receipt is None or not self.receipt.survivors
        if error is not None:
            return StepOutcome(course.EXCEPTION, self.rc, None, error[:1000], clean)
        if self.rc is None:
            text = "the agent reported neither an exit code nor an error"
            return StepOutcome(course.EXCEPTION, None, None, text, clean)
        state = course.SUCCESS if self.rc == 0 else course.FAILURE
        return StepOutcome(state, self.rc, self.failure_reason, None, clean)


def _append(log: LogWriter, key: str, value: Any) -> asyncio.Future[int]:
    if key == OUTPUT:
        output = Output.parse(value)
        return log.append(output.stream, output.data, output.offset)
    if key == "log":
        name, content = value
        return log.append(str(name), text_bytes(content))
    return log.append(key, text_bytes(value))
