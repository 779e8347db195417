"""Runs one job from its start to its kill receipt.

However a job ends (by itself, by a limit, by an interrupt, by cancelling run()), its enclosure is
emptied: when run() returns, none of its processes is alive, or the receipt names those that could
not be killed.

A command ends with its main process and the end of its output. A daemon that keeps the output open
after that gets DRAIN_S; then it is killed with the rest, and named in the receipt (E8).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable, Optional, Protocol

from hostler_agent.clock import Clock, SystemClock, wait_any
from hostler_agent.jobs import plan as plans
from hostler_agent.jobs.containment import Containment, Enclosure, Process, Reader
from hostler_agent.jobs.errors import SpawnerLost
from hostler_agent.jobs.plan import JobPlan
from hostler_agent.jobs.receipt import Ended, Exit, KillReceipt, Leftovers, ProcessName, Usage
from hostler_agent.jobs.tail import LogFile, Tail
from hostler_agent.jobs.watch import Watch

DRAIN_S = 5.0
KILL_DEADLINE_S = 10.0
_REMAINING_OUTPUT_S = 1.0
_SIGKILL = 9

_QUICK_S = 0.01

ReadingTasks = Mapping["asyncio.Task[None]", Reader]
ReadOutput = Callable[[str, Reader, Optional[bytes]], Coroutine[Any, Any, None]]


class Sink(Protocol):
    """Takes a job's output. Back-pressure: until a call returns, the pipe is not read (E11)."""

    async def take_output(self, stream: str, data: bytes) -> None: ...
    async def take_log(self, name: str, data: bytes) -> None: ...
    async def stopping(self, why: str) -> None:
        """The job is about to be killed; `why` is the reason."""


@dataclass(frozen=True)
class JobOutcome:
    receipt: KillReceipt
    signal: Optional[int]
    """The signal that ended the main process; None if there was none."""

    @property
    def return_code(self) -> int:
        """Buildbot's `rc`: -1 for a process that a signal ended, and for a stopped one that managed
        to exit with 0.
        """
        code = self.receipt.exit_code
        stopped = self.receipt.ended not in (Ended.EXITED, Ended.SIGNALLED)
        return -1 if code is None or (stopped and code == 0) else code


@dataclass(frozen=True)
class _Stop:
    ended: Ended
    why: str


class Job:
    """One job. interrupt() may be called at any time, also before run()."""

    def __init__(
        self,
        plan: JobPlan,
        containment: Containment,
        sink: Sink,
        log_files: Sequence[LogFile] = (),
        clock: Optional[Clock] = None,
    ) -> None:
        self._plan = plan
        self._containment = containment
        self._sink = sink
        self._clock = clock or SystemClock()
        self._watch = Watch(plan.limits, self._clock, self.interrupt)
        self._tails = [Tail(log, self._log, self._clock) for log in log_files]
        loop = asyncio.get_running_loop()
        self._stop: asyncio.Future[_Stop] = loop.create_future()
        self._over: asyncio.Future[None] = loop.create_future()

    def interrupt(self, ended: Ended, why: str) -> None:
        """End the job for this reason. Only the first reason counts."""
        if not self._stop.done():
            self._stop.set_result(_Stop(ended, why))

    async def run(self) -> JobOutcome:
        """Run the job. Raises PlanRefused or StartFailed, or OSError if the agent itself lacks
        descriptors or cgroups.
        """
        plans.check(self._plan)
        enclosure = self._containment.open(self._plan.command_id)
        try:
            process = await enclosure.start(self._plan)
            return await self._supervise(process, enclosure)
        except SpawnerLost:
            # Whether it ran, and what it did, nobody knows.
            return self._lost(await asyncio.shield(enclosure.empty(KILL_DEADLINE_S)))
        except BaseException:
            await asyncio.shield(enclosure.empty(KILL_DEADLINE_S))
            raise

    def _lost(self, left: Leftovers) -> JobOutcome:
        receipt = KillReceipt(
            ended=Ended.LOST,
            exit_code=None,
            containment=self._containment.name,
            pids_seen=len(left.found),
            survivors=left.survivors,
            escaped=left.escaped,
        )
        return JobOutcome(receipt, None)

    async def _supervise(self, process: Process, enclosure: Enclosure) -> JobOutcome:
        tasks = _Tasks()
        reading = _OutputReaders(tasks, self._read_output, process.readers)
        try:
            tails = [tasks.start(tail.run(self._over), "tail") for tail in self._tails]
            if process.writer is not None:
                tasks.start(process.writer.write_all(self._plan.stdin or b""), "stdin")
            exited = process.exited
            self._watch.start()
            await wait_any(self._clock, [exited, self._stop])
            reading.begin()
            if not exited.done():
                await self._ask_to_end(process, exited)
            lost = exited.done() and exited.exception() is not None
            held = () if lost else await self._drain(reading.running, enclosure)
            outcome = await self._empty(enclosure, process, exited, held)
            await self._read_remaining_output(reading.running)
            self._over.set_result(None)
            if tails:
                await asyncio.wait(tails)
            return outcome
        finally:
            self._watch.close()
            reading.close()
            await tasks.cancel()
            for end in (*process.readers.values(), process.writer):
                if end is not None:
                    end.close()

    async def _read_output(self, stream: str, reader: Reader, first: Optional[bytes]) -> None:
        data = await reader.read() if first is None else first
        while data:
            self._watch.count_lines(data)
            await self._deliver(self._sink.take_output(stream, data))
            data = await reader.read()

    async def _log(self, name: str, data: bytes) -> None:
        await self._deliver(self._sink.take_log(name, data))

    async def _deliver(self, taking: Awaitable[None]) -> None:
        self._watch.heard()
        try:
            await taking
        except Exception:
            # The output has no receiver any more, so the job is ended; _Tasks raises this error.
            self.interrupt(Ended.KILLED, "the output could not be delivered")
            raise
        finally:
            self._watch.taken()
        # Neither a full pipe nor an eager sink ever waits: the rest of the agent has its turn here.
        await asyncio.sleep(0)

    async def _ask_to_end(self, process: Process, exited: asyncio.Future[Exit]) -> None:
        """Ask the process to end (SIGTERM) and wait for the grace period, if the plan has one. Does
        not kill it (E1).
        """
        await self._sink.stopping(self._stop.result().why)
        grace_s = self._plan.limits.sigterm_time_s
        if grace_s is not None:
            await process.terminate()
            await wait_any(self._clock, [exited], grace_s)

    async def _drain(self, reading: ReadingTasks, enclosure: Enclosure) -> tuple[ProcessName, ...]:
        """Wait for the end of the output. Returns the processes that still hold it after
        DRAIN_S.
        """
        ends_at = self._clock.awake() + DRAIN_S
        while not self._stop.done():
            waiting = [task for task in reading if not task.done()]
            left_s = ends_at - self._clock.awake()
            if not waiting:
                return ()
            if left_s <= 0:
                return enclosure.holders([reading[task] for task in waiting])
            await wait_any(self._clock, [*waiting, self._stop], left_s)
        return ()

    async def _empty(
        self,
        enclosure: Enclosure,
        process: Process,
        exited: asyncio.Future[Exit],
        held: tuple[ProcessName, ...],
    ) -> JobOutcome:
        usage = enclosure.usage()
        left = await enclosure.empty(KILL_DEADLINE_S)
        if not left.survivors:
            # Killed, so it is about to be reaped; a spawner that is gone says so by an exception.
            await asyncio.wait({exited})
        main = _result(exited)
        receipt = KillReceipt(
            ended=self._ended(main, usage),
            exit_code=None if main is None else main.exit_code,
            containment=self._containment.name,
            pids_seen=len({process.pid, *(one.pid for one in left.found)}),
            usage=_completed(usage, main),
            survivors=left.survivors,
            held_output=tuple(one.name for one in held),
            escaped=left.escaped,
            missing=process.missing,
        )
        return JobOutcome(receipt, None if main is None else main.signal)

    def _ended(self, main: Optional[Exit], usage: Usage) -> Ended:
        if self._stop.done():
            return self._stop.result().ended
        if main is None:
            return Ended.LOST
        if main.signal == _SIGKILL and usage.oom_kills:
            return Ended.OOM_KILLED
        return Ended.EXITED if main.signal is None else Ended.SIGNALLED

    async def _read_remaining_output(self, reading: ReadingTasks) -> None:
        """Read what is left in the pipes after the job's processes have ended.

        Does not wait for a pipe that stays open (a survivor or a process of another job holds it),
        but does wait for a hub that is slow to take the output.
        """
        waiting = [task for task in reading if not task.done()]
        while waiting:
            await wait_any(self._clock, waiting, _REMAINING_OUTPUT_S)
            left = [task for task in waiting if not task.done()]
            if len(left) == len(waiting) and not self._watch.held_back:
                return
            waiting = left


class _OutputReaders:
    """Reads a job's output in a task for each pipe; `running` maps the tasks to their pipes.

    The tasks start a moment after the job. Most commands of a build have ended by then, and their
    output, if any, waits in the pipes, so they need neither tasks nor the poller.
    """

    def __init__(
        self, tasks: _Tasks, read_output: ReadOutput, readers: Mapping[str, Reader]
    ) -> None:
        self.running: dict[asyncio.Task[None], Reader] = {}
        self._tasks = tasks
        self._read_output = read_output
        self._readers = readers
        self._later = asyncio.get_running_loop().call_later(_QUICK_S, self.begin)

    def begin(self) -> None:
        """Start the tasks. A second call does nothing."""
        self._later.cancel()
        readers, self._readers = self._readers, {}
        for stream, reader in readers.items():
            first = reader.read_now()
            if first != b"":
                task = self._tasks.start(self._read_output(stream, reader, first), f"read {stream}")
                self.running[task] = reader

    def close(self) -> None:
        self._later.cancel()


class _Tasks:
    """The tasks of one job; none outlives the job."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[Any]] = []

    def start(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work, name=f"job {name}")
        self._tasks.append(task)
        return task

    async def cancel(self) -> None:
        """Cancel all tasks and wait for them. Raises the exception of one that failed: the sink's,
        or a defect.
        """
        for task in self._tasks:
            task.cancel()
        waiting = [task for task in self._tasks if not task.done()]
        if waiting:
            await asyncio.wait(waiting)
        for task in self._tasks:
            if not task.cancelled():
                task.result()


def _completed(usage: Usage, main: Optional[Exit]) -> Usage:
    """The usage, with the main process's own account where the enclosure reported none."""
    if main is None:
        return usage
    peak_bytes, cpu_s = usage.peak_memory_bytes, usage.cpu_s
    return Usage(
        main.peak_resident_bytes if peak_bytes is None else peak_bytes,
        main.cpu_s if cpu_s is None else cpu_s,
        usage.oom_kills,
    )


def _result(exited: asyncio.Future[Exit]) -> Optional[Exit]:
    """How the process ended; None while it runs, and if that cannot be known."""
    if not exited.done() or exited.cancelled() or exited.exception() is not None:
        return None
    return exited.result()
