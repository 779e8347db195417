"""Base of commands that work on files in a thread, can be interrupted, and have time limits."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Callable, ClassVar, Optional

from hostler_agent.commands.base import Command
from hostler_agent.commands.errors import WorkStopped
from hostler_agent.commands.progress import Progress

if TYPE_CHECKING:
    from hostler_agent.commands.slots.contract import Slot


class FileCommand(Command):
    """A command that works in a thread. It reports an OSError as Buildbot's header and `rc`."""

    makes_directories: ClassVar[bool] = False
    """Whether the command makes the build directories that are missing on the way to its paths."""

    _progress: Optional[Progress] = None
    _interrupted: Optional[str] = None

    def interrupt(self, why: str) -> None:
        self._interrupted = f"interrupted: {why}"
        if self._progress is not None:
            self._progress.stop(self._interrupted)

    def prepare(self) -> Callable[[Progress], list[list[object]]]:
        """Check the arguments. Returns the function to call in a thread, which returns the
        updates.
        """
        raise NotImplementedError

    def claimed(self) -> list[str]:
        """The paths whose build directories are to belong to the slot."""
        return self.arguments.paths_taken

    def worker(self) -> Slot:
        """The slot with whose rights the work is done."""
        return self.slot

    async def execute(self) -> None:
        work = self.prepare()
        self._progress = progress = Progress(
            self.arguments.seconds("maxTime"), self.arguments.seconds("timeout", 120)
        )
        if self._interrupted is not None:
            progress.stop(self._interrupted)
        try:
            await self.slot.claim(self.claimed(), make=self.makes_directories)
            pairs = await self.worker().run(work, progress)
        except asyncio.CancelledError:
            # The thread cannot be cancelled, but it looks before each step.
            progress.stop("cancelled")
            raise
        except WorkStopped as stopped:
            await self._fail(str(stopped), -1)
        except OSError as error:
            where = error.filename if error.filename is not None else ""
            await self._fail(f"{error.strerror or error}: {os.fsdecode(where)}", error.errno or -1)
        else:
            for name, value in pairs:
                await self.output.pair(str(name), value)
            await self.output.pair("rc", 0)

    async def _fail(self, why: str, code: int) -> None:
        await self.output.say("header", f"{self.name}: {why}\n")
        await self.output.pair("rc", code)
