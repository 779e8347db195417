"""Base of commands that work on files in a thread, can be interrupted, and have time limits."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from typing import Callable, Optional

from hostler_agent.commands.base import Command
from hostler_agent.commands.errors import WorkStopped


class Progress:
    """The state shared by the thread that works and the event loop that waits for it."""

    def __init__(
        self, max_time_s: Optional[float] = None, timeout_s: Optional[float] = None
    ) -> None:
        self._max_time_s = max_time_s
        self._timeout_s = timeout_s
        self._begun = self._last = time.monotonic()
        self._stopped: Optional[str] = None
        self._lock = threading.Lock()

    def stop(self, why: str) -> None:
        with self._lock:
            self._stopped = self._stopped or why

    def step(self) -> None:
        """Raise WorkStopped if the work is to stop. The thread must call this between two pieces of
        work.
        """
        now = time.monotonic()
        if self._max_time_s and now - self._begun >= self._max_time_s:
            self.stop(f"timed out: {self._max_time_s:g} seconds elapsed")
        if self._timeout_s and now - self._last >= self._timeout_s:
            self.stop(f"timed out: {self._timeout_s:g} seconds without progress")
        self._last = now
        if self._stopped is not None:
            raise WorkStopped(self._stopped)


class FileCommand(Command):
    """A command that works in a thread. It reports an OSError as Buildbot's header and `rc`."""

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

    async def execute(self) -> None:
        work = self.prepare()
        self._progress = progress = Progress(
            self.arguments.seconds("maxTime"), self.arguments.seconds("timeout", 120)
        )
        if self._interrupted is not None:
            progress.stop(self._interrupted)
        loop = asyncio.get_running_loop()
        try:
            pairs = await loop.run_in_executor(None, work, progress)
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
