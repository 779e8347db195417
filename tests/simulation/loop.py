"""An event loop on virtual time, and the processes that live in it.

Theory of operation. The loop never sleeps: when nothing is ready it sets its clock to the next
timer. Threads there are none: what is handed to an executor runs in the loop, a moment later. So
the same program with the same random numbers has the same history, to the last callback.

Everything that runs belongs to a *process* (a hub, an agent), known by a context variable that
tasks, timers and callbacks inherit. To kill a process is to drop whatever of it is still to run:
no exception, no `finally`, as with `kill -9`. A process that is stopped (SIGSTOP) keeps what falls
due until it goes on; of one whose machine is suspended the monotonic clock stands still as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import heapq
import sys
from collections.abc import Callable, Coroutine
from typing import Any
from unittest import mock

PROCESS: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)

# More callbacks than this at one instant are no progress.
BUSY_LIMIT = 200_000


class Stuck(AssertionError):
    """Nothing will ever happen again, or nothing but the same."""


class Killed(BaseException):
    """Ends synchronous code of a process that has just died; nobody hears of it."""


class Process:
    """One simulated operating-system process. ``context`` is what its code runs in."""

    def __init__(self, loop: VirtualLoop, name: str) -> None:
        self.loop = loop
        self.name = name
        self.dead = False
        self.stopped = False
        self.asleep_s = 0.0
        self.tasks: set[asyncio.Task[Any]] = set()
        self.deaths: list[Callable[[], object]] = []
        self._parked: list[asyncio.Handle] = []
        self._suspended_at: float | None = None
        self.context = contextvars.Context()
        self.context.run(PROCESS.set, self)
        loop.processes.append(self)

    def __repr__(self) -> str:
        return f"<Process {self.name}>"

    def spawn(self, coroutine: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run a coroutine as part of this process."""
        return self.loop.create_task(coroutine, name=name, context=self.context.copy())

    def kill(self) -> None:
        """kill -9: from here on nothing of it runs, and the system closes what it held."""
        if self.dead:
            return
        self.dead = True
        self._parked.clear()
        deaths, self.deaths = self.deaths, []
        for tell in deaths:
            tell()

    async def die(self) -> None:
        """Kill the process from inside it: does not return."""
        self.kill()
        await self.loop.create_future()

    def stop(self) -> None:
        """SIGSTOP: its clocks go on, it does not."""
        self.stopped = True

    def resume(self) -> None:
        """SIGCONT: what fell due meanwhile happens now."""
        self.stopped = False
        parked, self._parked = self._parked, []
        self.loop.requeue(parked)

    def suspend(self) -> None:
        """Its machine is suspended: the monotonic clock stands still too (A8)."""
        self._suspended_at = self.loop.now
        self.stop()

    def wake(self) -> None:
        """The machine goes on; timers have as far to go as they had."""
        assert self._suspended_at is not None
        slept_s = self.loop.now - self._suspended_at
        self.asleep_s += slept_s
        parked, self._parked = self._parked, []
        self.loop.postpone(self, slept_s)
        late = [each for each in parked if isinstance(each, asyncio.TimerHandle)]
        for handle in late:
            self.loop.schedule_again(handle, slept_s)
        self.loop.requeue([each for each in parked if each not in late])
        self._suspended_at = None
        self.stopped = False

    def admits(self, handle: asyncio.Handle) -> bool:
        """Whether the callback may run now; of a stopped process it is kept."""
        if self.stopped and not self.dead:
            self._parked.append(handle)
        return not self.dead and not self.stopped

    def bury(self) -> None:
        """Close its suspended coroutines, which nobody will resume, without a word."""
        while self.tasks:  # what one of them does at its end may start another
            task = self.tasks.pop()
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            self.context.copy().run(_close, task.get_coro())


def _say_nothing(_: object) -> None:
    pass


def _close(coroutine: Any) -> None:
    """From the inside out: what ignores its end may otherwise be left behind, suspended."""
    for _ in range(50):  # each await in a `finally` needs one more
        for each in reversed(_chain(coroutine)):
            with contextlib.suppress(BaseException):  # the dead may say what they like
                each.close()
        if coroutine.cr_frame is None:
            return


def _close_generator(generator: Any) -> None:
    for _ in range(50):
        for each in reversed(_chain(generator)[1:]):
            with contextlib.suppress(BaseException):
                each.close()
        with contextlib.suppress(BaseException):
            generator.aclose().send(None)
        if generator.ag_frame is None:
            return


def _chain(awaiting: Any) -> list[Any]:
    """Who waits for whom, from the outside in."""
    chain = [awaiting]
    while True:
        last = chain[-1]
        inner = getattr(last, "cr_await", None) or getattr(last, "ag_await", None)
        if not hasattr(inner, "close"):
            return chain
        chain.append(inner)


class _Handle(asyncio.Handle):
    __slots__ = ()

    def _run(self) -> None:
        process = self._context.get(PROCESS)  # type: ignore[attr-defined]
        if process is None or process.admits(self):
            super()._run()  # type: ignore[misc]


class _TimerHandle(asyncio.TimerHandle):
    __slots__ = ()

    def _run(self) -> None:
        process = self._context.get(PROCESS)  # type: ignore[attr-defined]
        if process is None or process.admits(self):
            super()._run()  # type: ignore[misc]


class _Selector:
    """Where a real loop would wait for the outside; here there is none."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        self._loop.pass_time(timeout)
        return []

    def close(self) -> None:
        pass


class VirtualLoop(asyncio.BaseEventLoop):
    """See the module. ``now`` is the time outside of all processes, in seconds from 0."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.processes: list[Process] = []
        self.failures: list[dict[str, Any]] = []
        self._selector = _Selector(self)
        self._clock_resolution = 1e-6
        self._at_this_instant = 0
        self.set_task_factory(_make_task)  # type: ignore[arg-type]
        self.set_exception_handler(self._note)

    # --- time ---------------------------------------------------------------------------------

    def time(self) -> float:
        process = PROCESS.get()
        return self.now if process is None else self.now - process.asleep_s

    def pass_time(self, timeout: float | None) -> None:
        """Go to the next timer, unless something is ready."""
        if timeout == 0:
            self._at_this_instant += 1
            if self._at_this_instant > BUSY_LIMIT:
                raise Stuck(f"busy for ever at {self.now:.3f} s")
            return
        if timeout is None or not self._scheduled:  # type: ignore[attr-defined]
            raise Stuck(f"at {self.now:.3f} s nothing is left to happen")
        self._at_this_instant = 0
        due = self._scheduled[0]._when  # type: ignore[attr-defined]
        self.now = max(self.now, min(due, self.now + timeout))

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> Any:
        context = contextvars.copy_context() if context is None else context
        process = context.get(PROCESS)
        if process is not None:
            when += process.asleep_s
        timer = _TimerHandle(when, callback, args, self, context)
        self._schedule(timer)
        return timer

    def _call_soon(self, callback: Any, args: Any, context: Any) -> asyncio.Handle:
        context = contextvars.copy_context() if context is None else context
        handle = _Handle(callback, args, self, context)
        self._ready.append(handle)  # type: ignore[attr-defined]
        return handle

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Any = None) -> Any:
        return self.call_soon(callback, *args, context=context)

    def schedule_again(self, handle: asyncio.TimerHandle, by_s: float) -> None:
        handle._when += by_s  # type: ignore[attr-defined]
        self._schedule(handle)

    def postpone(self, process: Process, by_s: float) -> None:
        """Move every timer of a process."""
        for handle in self._scheduled:  # type: ignore[attr-defined]
            if handle._context.get(PROCESS) is process:
                handle._when += by_s
        heapq.heapify(self._scheduled)  # type: ignore[attr-defined]

    def requeue(self, handles: list[asyncio.Handle]) -> None:
        self._ready.extend(handles)  # type: ignore[attr-defined]

    def _schedule(self, timer: asyncio.TimerHandle) -> None:
        heapq.heappush(self._scheduled, timer)  # type: ignore[attr-defined]
        timer._scheduled = True  # type: ignore[attr-defined]

    # --- threads there are none --------------------------------------------------------------

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> asyncio.Future[Any]:
        future = self.create_future()

        def run() -> None:
            if future.cancelled():
                return
            try:
                future.set_result(func(*args))
            except Exception as error:  # noqa: BLE001 - the waiter's to handle
                future.set_exception(error)

        self.call_soon(run)
        return future

    # --- the rest of a loop -----------------------------------------------------------------

    def _process_events(self, event_list: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def _note(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not isinstance(context.get("exception"), Killed):
            self.failures.append(context)

    def bury_all(self) -> None:
        """The simulation is over."""
        for process in self.processes:
            process.kill()
        asyncio._set_running_loop(self)  # what closes may start something, and is closed in turn
        try:
            with mock.patch.object(sys, "unraisablehook", _say_nothing):
                for generator in list(self._asyncgens):  # type: ignore[attr-defined]
                    _close_generator(generator)
                for process in self.processes:
                    process.bury()
        finally:
            asyncio._set_running_loop(None)


def _make_task(
    loop: asyncio.AbstractEventLoop, coroutine: Any, context: Any = None, **options: Any
) -> asyncio.Task[Any]:
    if context is None:
        context = contextvars.copy_context()
    task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, context=context, **options)
    process = context.get(PROCESS)
    if process is not None:
        process.tasks.add(task)
        task.add_done_callback(process.tasks.discard, context=contextvars.Context())
    return task


@contextlib.contextmanager
def outside() -> Any:
    """Code of the world, not of whatever process happens to call it."""
    token = PROCESS.set(None)
    try:
        yield
    finally:
        PROCESS.reset(token)
