"""Updates and completions that the hub has not acknowledged yet.

Everything that a command reports passes through here in order, and stays until the hub has answered
it. If a connection breaks meanwhile, the next one sends it again, and nothing is lost (K8, K9). The
outbox is bounded, and put() waits for room: that finally stops a process that floods (E11).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Optional, Union

from hostler_agent.wire.errors import LimitExceeded
from hostler_agent.wire.limits import MEBIBYTE, TO_HUB
from hostler_agent.wire.messages import Complete, Packed, Update

LIMIT_BYTES = 4 * MEBIBYTE
ENVELOPE_BYTES = 64
"""More than `op` and `seq_number` add to a message's size."""

MAX_FAILURE_CHARACTERS = 4096

Report = Union[Update, Complete]


@dataclass(frozen=True)
class Entry:
    """A report in the outbox; `number` gives the order."""

    number: int
    report: Packed
    size_bytes: int


class Outbox:
    """Reports in order, until they are acknowledged. Must be made inside the running event loop."""

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._entries: dict[int, Entry] = {}
        self._unacknowledged_bytes = 0
        self._next_number = 0
        self._cursor = 0
        self._changed = asyncio.Event()

    @property
    def unacknowledged_bytes(self) -> int:
        return self._unacknowledged_bytes

    def __contains__(self, entry: Entry) -> bool:
        return entry.number in self._entries

    async def put(self, report: Report) -> None:
        """Queue a report once there is room. Raises WireError if it cannot be sent."""
        packed = Packed(report)
        size_bytes = len(packed.encoded) + ENVELOPE_BYTES
        if size_bytes > TO_HUB.message_size_bytes:
            raise LimitExceeded(f"{report.op} of {size_bytes} bytes is too large to send")
        while not self._has_room(size_bytes):
            await self._change()
        self._add(packed, size_bytes)

    def complete(self, command_id: str, failure: Optional[str]) -> None:
        """Queue a command's completion, which is small and never waits for room."""
        if failure is not None:
            # File names in it may hold lone surrogates, which cannot be sent.
            failure = failure[:MAX_FAILURE_CHARACTERS].encode("utf-8", "replace").decode()
        packed = Packed(Complete(command_id, failure))
        self._add(packed, len(packed.encoded) + ENVELOPE_BYTES)

    async def next(self) -> Entry:
        """Wait for the next report that was not sent over this connection."""
        while True:
            while self._cursor < self._next_number:
                entry = self._entries.get(self._cursor)
                self._cursor += 1
                if entry is not None:
                    return entry
            await self._change()

    def rewind(self) -> None:
        """Begin again for a new connection: everything unacknowledged is to be sent again."""
        self._cursor = next(iter(self._entries), self._next_number)
        self._changed.set()

    def acknowledge(self, entry: Entry) -> None:
        """Remove a report that the hub has. A second call does nothing."""
        if self._entries.pop(entry.number, None) is not None:
            self._unacknowledged_bytes -= entry.size_bytes
            self._changed.set()

    def discard(self, command_id: str) -> None:
        """Remove all reports of a command that nobody waits for."""
        for entry in list(self._entries.values()):
            if entry.report.command_id == command_id:
                self.acknowledge(entry)

    def holds(self, command_id: str) -> bool:
        """Whether a report of the command is unacknowledged."""
        return any(entry.report.command_id == command_id for entry in self._entries.values())

    async def drained(self) -> None:
        """Wait until everything is acknowledged."""
        while self._entries:
            await self._change()

    def _add(self, report: Packed, size_bytes: int) -> None:
        self._entries[self._next_number] = Entry(self._next_number, report, size_bytes)
        self._next_number += 1
        self._unacknowledged_bytes += size_bytes
        self._changed.set()

    def _has_room(self, size_bytes: int) -> bool:
        # An empty outbox takes anything, so that a limit smaller than a report blocks nobody.
        return not self._entries or self._unacknowledged_bytes + size_bytes <= self._limit_bytes

    async def _change(self) -> None:
        # Everybody who waits is woken by one set(); clearing before waiting misses none, because
        # nothing else runs between a waiter's look at the state and its wait().
        self._changed.clear()
        await self._changed.wait()
