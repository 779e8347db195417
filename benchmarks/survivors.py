"""What outlives its command: ours beside a stock buildbot-worker, each put to the same torture.

Every process that a command leaves bears the torture's mark in its environment, so that what is
alive afterwards can be counted by somebody who asks neither worker, and be killed in the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import buildbot
from benchmarks.processes import BenchmarkFailed
from benchmarks.rows import Goal, Plan, Reference, Row, Samples
from benchmarks.worker_master import Command, Master
from benchmarks.worker_peers import RAW, TEXT, TUNED, Attached, Kind, attached
from hostler_agent.jobs.posix import procfs
from hostler_agent.wire import messages

MARK = "HOSTLER_BENCHMARK"
IN_FLIGHT = 8
SETTLE_S = 3.0
"""Within this everything must be gone that is going to be."""
HELD_S = 12.0

HELD = "until the step ends"
RECEIPTS = "receipts"

SLEEPER = "sleep 3600 </dev/null >/dev/null 2>&1"
ESCAPE = f"(setsid {SLEEPER} &)"
"""Two forks and a session of its own; the command ends at the same moment."""
FAMILY = f"{SLEEPER} & setsid {SLEEPER} & {ESCAPE}; echo Ready; wait"
HOLDER = "sleep 3600 & echo Ready"


@dataclass
class Torture:
    """One worker's; `mark` is on whatever its commands start."""

    one: Attached
    directory: Path
    mark: str = field(default_factory=lambda: secrets.token_hex(16))

    async def start(self, script: str) -> Command:
        return await self.one.worker.start(["/bin/sh", "-c", script], {MARK: self.mark})

    async def start_family(self) -> Command:
        """A command that stays, with children of three kinds."""
        command = await self.start(FAMILY)
        await command.heard.wait()
        return command

    def alive(self) -> set[int]:
        return {pid for pid in procfs.all_pids() if procfs.environment_has(pid, MARK, self.mark)}

    async def survivors(self) -> int:
        """How many are alive at the end of the time to settle."""
        ends_at = time.monotonic() + SETTLE_S
        while (left := len(self.alive())) and time.monotonic() < ends_at:  # noqa: ASYNC110
            await asyncio.sleep(0.05)  # nobody tells of the end of a stranger's child
        return left

    @contextlib.contextmanager
    def cleared(self) -> Iterator[None]:
        try:
            yield
        finally:
            # By pidfd, and only what bears our mark.
            while procfs.signal_members(self.alive, signal.SIGKILL):
                time.sleep(0.01)


def measure(plan: Plan, directory: Path) -> list[Row]:
    samples = {kind: Samples() for kind in (TEXT, RAW, TUNED)}
    for kind, figures in samples.items():
        asyncio.run(_torture(plan, kind, directory, figures))
    ours, raw, theirs = samples[TEXT], samples[RAW], samples[TUNED]
    none = Goal("value", "at most", 0)
    rows = []
    for case in theirs.by_name:
        peer = Reference(buildbot.WORKER, theirs[case])
        if case == HELD:
            goal = Goal("value", "at most", 6)
            rows.append(Row(f"held output, {case}", "s", ours[case], goal, peer))
        else:
            rows.append(Row(f"survivors, {case}", "", ours[case], none, peer))
    # Only our own hub gets receipts.
    return [*rows, Row("escapes without a whole receipt", "", raw[RECEIPTS], none)]


async def _torture(plan: Plan, kind: Kind, directory: Path, samples: Samples) -> None:
    async with Master().listening() as master:
        if kind is RAW:
            async with _tortured(master, kind, directory) as torture:
                await _escapes(plan, torture, samples)
            return
        cases: list[tuple[str, Callable[[Torture], Awaitable[None]]]] = [
            ("an interrupt", _interrupt),
            ("shutdown by the master", _shut_down),
            ("SIGTERM to the worker", _terminate),
            ("SIGKILL to the worker", _kill),
            ("a lost connection", _disconnect),
        ]
        async with _tortured(master, kind, directory) as torture:
            await _escapes(plan, torture, samples)
        async with _tortured(master, kind, directory) as torture:
            await _hold(torture, samples)
        for what, end in cases:
            async with _tortured(master, kind, directory) as torture:
                await end(torture)
                samples.add(f"a tree of 4, {what}", await torture.survivors())


@contextlib.asynccontextmanager
async def _tortured(master: Master, kind: Kind, directory: Path) -> AsyncIterator[Torture]:
    async with attached(master, kind, directory) as one:
        torture = Torture(one, directory)
        with torture.cleared():
            yield torture


async def _escapes(plan: Plan, torture: Torture, samples: Samples) -> None:
    """Commands whose first act is to leave a detached grandchild."""
    count = plan.builds * 5 // 3  # 500 in a full run
    incomplete = 0

    async def lane(turns: int) -> None:
        nonlocal incomplete
        for _ in range(turns):
            command = await torture.start(ESCAPE)
            await command.end()
            if command.rc != 0:
                raise BenchmarkFailed(f"an escape ended with {command.rc}")
            incomplete += not is_whole(command)

    turns = [len(range(number, count, IN_FLIGHT)) for number in range(IN_FLIGHT)]
    await asyncio.gather(*map(lane, turns))
    samples.add(f"{count} escapes", await torture.survivors())
    if torture.one.worker.raw:
        samples.add(RECEIPTS, incomplete)


def is_whole(command: Command) -> bool:
    receipt = command.receipt
    return (
        receipt is not None
        and receipt["ended"] == "exited"
        and receipt["exit_code"] == 0
        and receipt["pids_seen"] >= 1
        and receipt["survivors"] == []
    )


async def _hold(torture: Torture, samples: Samples) -> None:
    """A background child has the command's output."""
    began_at = time.monotonic()
    command = await torture.start(HOLDER)
    with contextlib.suppress(TimeoutError):
        await command.end(HELD_S)
    samples.add(HELD, time.monotonic() - began_at)
    samples.add("a child that holds the output", await torture.survivors())


async def _interrupt(torture: Torture) -> None:
    command = await torture.start_family()
    await torture.one.worker.interrupt(command)
    await command.end(HELD_S)


async def _shut_down(torture: Torture) -> None:
    await torture.start_family()
    # The worker may be gone before it has answered.
    with contextlib.suppress(BenchmarkFailed, TimeoutError):
        await torture.one.worker.ask(messages.Shutdown(), SETTLE_S)
    await _ended(torture)


async def _terminate(torture: Torture) -> None:
    await torture.start_family()
    torture.one.process.terminate()
    with contextlib.suppress(BenchmarkFailed):
        await _ended(torture)
        return
    # Ours lets its commands end first; asked twice, it ends at once.
    torture.one.process.terminate()
    await _ended(torture)


async def _kill(torture: Torture) -> None:
    await torture.start_family()
    torture.one.process.kill()
    await _ended(torture)


async def _disconnect(torture: Torture) -> None:
    await torture.start_family()
    torture.one.worker.cut()


async def _ended(torture: Torture) -> None:
    """Waits for the worker's process; raises BenchmarkFailed when it stays."""
    ends_at = time.monotonic() + SETTLE_S
    while torture.one.process.poll() is None:
        if time.monotonic() > ends_at:
            raise BenchmarkFailed("a worker did not end when it was told to")
        await asyncio.sleep(0.02)
