"""Handshakes with commands through named pipes: nobody sleeps, nobody guesses."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

import psutil

_PATIENCE_S = 60.0


class Job:
    """The command's process, known by its pid and the instant it started."""

    def __init__(self, pid: int) -> None:
        self._process: psutil.Process | None = None
        with contextlib.suppress(psutil.NoSuchProcess):  # it has been ended already
            self._process = psutil.Process(pid)

    @property
    def parent(self) -> int:
        """The pid of what started it: the agent's spawner."""
        assert self._process is not None
        return self._process.ppid()

    def lives(self) -> bool:
        """A zombie that nobody has buried yet does not."""
        if self._process is None:
            return False
        try:
            return self._process.status() != psutil.STATUS_ZOMBIE and self._process.is_running()
        except psutil.NoSuchProcess:
            return False

    async def ended(self) -> None:
        async with asyncio.timeout(_PATIENCE_S):
            while self.lives():  # noqa: ASYNC110 - the kernel sets no Event
                await asyncio.sleep(0.02)


class Gate:
    """A command that says when it runs, then copies what it is sent to its output, then ends.

    Both ends of each pipe are opened here, so that nobody waits in open().
    """

    def __init__(self, directory: Path, name: str) -> None:
        self._ready_path, self._input_path = directory / f"{name}.ready", directory / f"{name}.in"
        for path in (self._ready_path, self._input_path):
            os.mkfifo(path)
        self._entered: list[int] = []
        self._ready = os.open(self._ready_path, os.O_RDWR | os.O_NONBLOCK)
        self._input: int | None = os.open(self._input_path, os.O_RDWR)

    @property
    def command(self) -> list[str]:
        # The input is opened first: whoever waited for `ready` may close the other end at once.
        script = f"exec 3<{self._input_path}; echo $$ >{self._ready_path}; exec cat <&3"
        return ["sh", "-c", script]

    async def entered(self) -> Job:
        """Wait until the command runs. Each run of it says so once."""
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(self._ready, readable.set)
        try:
            async with asyncio.timeout(_PATIENCE_S):
                while not self.has_been_entered():
                    readable.clear()
                    await readable.wait()
        finally:
            loop.remove_reader(self._ready)
        return Job(self._entered.pop(0))

    def has_been_entered(self) -> bool:
        """Whether a run has said so that entered() has not yet told of."""
        with contextlib.suppress(BlockingIOError):
            self._entered += [int(line) for line in os.read(self._ready, 4096).split()]
        return bool(self._entered)

    async def send(self, data: bytes) -> None:
        """Through the command to its output; waits while the pipe is full."""
        assert self._input is not None
        view = memoryview(data)
        while view:
            view = view[await asyncio.to_thread(os.write, self._input, view[:32768]) :]

    def open(self) -> None:
        """The end of the input: the command exits with 0."""
        if self._input is not None:
            os.close(self._input)
            self._input = None

    def close(self) -> None:
        self.open()
        os.close(self._ready)
