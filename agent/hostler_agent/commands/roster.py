"""The agent's commands: those that run, and those that ended and are not yet forgotten.

To *forget* a command means to end it without a report, because its lease is over, its hub has lost
it, or the agent goes away. With a report, a killed command would look like one that failed by
itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional

from hostler_agent.wire.extension import DONE, RUNNING, CommandReport

if TYPE_CHECKING:
    from hostler_agent.commands import Command
    from hostler_agent.hub.outbox import Outbox

REMEMBERED = 1000
"""The number of ended commands that are still recognised when a start is repeated (K7)."""

END_GRACE_S = 20.0
"""How long a command may take to end after an interrupt, its own grace for SIGTERM included; then
its task is cancelled."""

log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Entry:
    command: Command
    task: asyncio.Task[None]
    forgotten: bool = False


class Roster:
    """The commands of one agent. Must be made inside the running event loop."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._entries: dict[str, _Entry] = {}
        self._done: dict[str, None] = {}
        self._lost: dict[str, None] = {}
        self._enders: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    def knows(self, command_id: str) -> bool:
        """Whether a command of that id runs, or has ended and was not forgotten."""
        return self.is_live(command_id) or command_id in self._done

    def has_lost(self, command_id: str) -> bool:
        """Whether a command of that id was ended because its lease was over."""
        return command_id in self._lost

    def is_live(self, command_id: str) -> bool:
        """Whether the command runs and was not forgotten."""
        entry = self._entries.get(command_id)
        return entry is not None and not entry.forgotten

    def is_ending(self, command_id: str) -> bool:
        """Whether the command is forgotten but has not ended yet."""
        entry = self._entries.get(command_id)
        return entry is not None and entry.forgotten

    def reports(self) -> tuple[CommandReport, ...]:
        """The commands that a hub may resume at attach."""
        running = [CommandReport(one, RUNNING) for one in self._entries if self.is_live(one)]
        done = [CommandReport(one, DONE) for one in self._done if self._outbox.holds(one)]
        return (*running, *done)

    def start(self, command_id: str, command: Command) -> None:
        """Run a command in a task of its own, which reports its end."""
        self._idle.clear()
        task = asyncio.create_task(self._run(command_id, command), name=f"command {command_id}")
        self._entries[command_id] = _Entry(command, task)

    def interrupt(self, command_id: str, why: str) -> bool:
        """Ask a command to end and report. Returns False if there is none of that id.

        A command that has ended already counts as interrupted: a cancel and an end can cross (A13).
        """
        if self.is_live(command_id):
            self._entries[command_id].command.interrupt(why)
            return True
        return command_id in self._done

    def lose(self, why: str) -> None:
        """Forget all commands for good: a hub that starts one of them again is told that it is lost
        (A7).
        """
        for command_id in [*self._entries, *self._done]:
            _remember(self._lost, command_id)
        self.forget(why)

    def forget(self, why: str, keep: Collection[str] = ()) -> None:
        """End all commands but those in `keep`, report nothing of them, and return at once."""
        for command_id, entry in self._entries.items():
            if command_id not in keep and not entry.forgotten:
                log.warning("ending command %s: %s", command_id, why)
                entry.forgotten = True
                self._outbox.discard(command_id)
                self._start_end(command_id, entry, why)
        for command_id in [done for done in self._done if done not in keep]:
            del self._done[command_id]
            self._outbox.discard(command_id)

    def is_idle(self) -> bool:
        """Whether no command runs, forgotten or not."""
        return self._idle.is_set()

    async def idle(self) -> None:
        """Wait until no command runs, forgotten or not."""
        await self._idle.wait()

    async def aclose(self, why: str, grace_s: float = END_GRACE_S) -> None:
        """Forget all commands and wait until they end; cancel those that take longer than
        `grace_s`.
        """
        self.forget(why)
        tasks = [entry.task for entry in self._entries.values()]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=grace_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        for ender in self._enders:
            ender.cancel()
        await asyncio.gather(*self._enders, return_exceptions=True)

    async def _run(self, command_id: str, command: Command) -> None:
        failure: Optional[str] = "the command was cancelled"
        try:
            await command.run()
            failure = None
        except Exception as error:
            failure = str(error) or type(error).__name__
            log.info("command %s failed: %s", command_id, failure, exc_info=error)
        finally:
            self._finish(command_id, failure)

    def _finish(self, command_id: str, failure: Optional[str]) -> None:
        entry = self._entries.pop(command_id)
        if not entry.forgotten:
            self._outbox.complete(command_id, failure)
            _remember(self._done, command_id)
        if not self._entries:
            self._idle.set()

    def _start_end(self, command_id: str, entry: _Entry, why: str) -> None:
        ender = asyncio.create_task(_end(entry, why), name=f"end of command {command_id}")
        self._enders.add(ender)
        ender.add_done_callback(self._enders.discard)


def _remember(ids: dict[str, None], command_id: str) -> None:
    ids[command_id] = None
    while len(ids) > REMEMBERED:
        del ids[next(iter(ids))]


async def _end(entry: _Entry, why: str) -> None:
    entry.command.interrupt(why)
    _, late = await asyncio.wait([entry.task], timeout=END_GRACE_S)
    for task in late:
        task.cancel()
