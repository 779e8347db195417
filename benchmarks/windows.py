"""What outlives its command on Windows: ours beside a stock buildbot-worker, under Wine.

The workers, their commands and the children run on a Windows Python. Whatever a command leaves
bears a mark in its arguments, which this side sees in /proc: so it is counted, and killed in the
end, by somebody who asks neither worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import buildbot
from benchmarks.processes import PROJECT, BenchmarkFailed
from benchmarks.rows import Goal, Plan, Reference, Row, Samples
from benchmarks.survivors import HELD_S, SETTLE_S, is_whole
from benchmarks.worker_master import Command, Master, Worker
from hostler_agent.jobs.posix import procfs

if TYPE_CHECKING:
    from peers.wine import Windows

AT_ONCE = 4
BATCH = 20
"""So many are counted at a time: what a peer leaves, each a Python of 20 MB, is then cleared."""
RECEIPTS = "receipts"


@dataclass
class Torture:
    """One worker's; `mark` is in the arguments of whatever its commands start."""

    worker: Worker
    process: subprocess.Popen[bytes]
    child: list[str]
    mark: str = field(default_factory=lambda: secrets.token_hex(16))

    async def start(self, *words: str) -> Command:
        return await self.worker.start([*self.child, *words, self.mark])

    def alive(self) -> set[int]:
        return {pid for pid in procfs.all_pids() if _has(pid, self.mark.encode())}

    async def survivors(self) -> int:
        """How many are alive at the end of the time to settle; they are killed then."""
        ends_at = time.monotonic() + SETTLE_S
        while (left := len(self.alive())) and time.monotonic() < ends_at:  # noqa: ASYNC110
            await asyncio.sleep(0.05)  # nobody tells of the end of a stranger's child
        self.clear()
        return left

    def clear(self) -> None:
        # By pidfd, and only what bears our mark.
        while procfs.signal_members(self.alive, signal.SIGKILL):
            time.sleep(0.01)


def measure(plan: Plan, directory: Path) -> list[Row]:
    sys.path.insert(0, str(PROJECT / "tests"))
    from peers import wine  # noqa: PLC0415 - of the tests, and for this benchmark only

    missing = wine.missing()
    if missing is not None:
        print(f"not measured: {missing}", file=sys.stderr)
        return []
    directory.mkdir(parents=True)
    count = plan.builds * 5 // 3  # 500 in a full run
    samples = {True: Samples(), False: Samples()}
    for ours, figures in samples.items():
        asyncio.run(_torture(count, wine.windows(), directory, ours, figures))
    none = Goal("value", "at most", 0)
    rows = []
    for case, left in samples[True].by_name.items():
        if case == RECEIPTS:
            rows.append(Row("Windows: escapes without a whole receipt", "", left, none))
        else:
            peer = Reference(buildbot.WORKER, samples[False][case])
            rows.append(Row(f"Windows: survivors, {case}", "", left, none, peer))
    # Its commands are not compared: a stock worker's step fails of this now and then, if at all.
    seen = wine.windows().call("attach.exiting", count, within_s=60 + count)
    failed = Samples()
    failed.add("assignments", len(seen["failed"]))
    what = f"Windows: {count} assignments of exiting processes, failed"
    return [*rows, Row(what, "", failed["assignments"], none)]


async def _torture(
    count: int, windows: Windows, directory: Path, ours: bool, samples: Samples
) -> None:
    async with Master().listening() as master:
        async with _attached(master, windows, directory, ours) as torture:
            await _escapes(count, torture, samples)
        async with _attached(master, windows, directory, ours) as torture:
            command = await _family(torture)
            await torture.worker.interrupt(command)
            with contextlib.suppress(TimeoutError):
                await command.end(HELD_S)
            samples.add("a tree of 4, an interrupt", await torture.survivors())
        async with _attached(master, windows, directory, ours) as torture:
            await _family(torture)
            torture.process.kill()
            samples.add("a tree of 4, SIGKILL to the worker", await torture.survivors())


async def _escapes(count: int, torture: Torture, samples: Samples) -> None:
    """Commands whose first act is to leave a detached grandchild in a group of its own."""
    incomplete = left = 0

    async def escape() -> None:
        nonlocal incomplete
        command = await torture.start("escape")
        await command.end()
        if command.rc != 0:
            raise BenchmarkFailed(f"an escape ended with {command.rc}: {command.said}")
        incomplete += not is_whole(command)

    async def lane(turns: int) -> None:
        for _ in range(turns):
            await escape()

    for begun in range(0, count, BATCH):
        batch = min(BATCH, count - begun)
        turns = [len(range(number, batch, AT_ONCE)) for number in range(AT_ONCE)]
        await asyncio.gather(*map(lane, turns))
        left += await torture.survivors()
    samples.add(f"{count} escapes", left)
    if torture.worker.raw:
        samples.add(RECEIPTS, incomplete)


async def _family(torture: Torture) -> Command:
    """A command that stays, and its children, some of them detached."""
    command = await torture.start("tree", "4")
    while "Ready" not in command.said:
        command.heard.clear()
        await asyncio.wait_for(command.heard.wait(), HELD_S)
    return command


@contextlib.asynccontextmanager
async def _attached(
    master: Master, windows: Windows, directory: Path, ours: bool
) -> AsyncIterator[Torture]:
    name = f"windows-{secrets.token_hex(4)}"
    master.expect(name, raw=ours)
    with contextlib.ExitStack() as stack:
        start = _ours if ours else _stock
        process = await asyncio.to_thread(
            stack.enter_context, start(master, windows, directory / name, name)
        )
        torture = Torture(await master.attached(name), process, _child(windows))
        stack.callback(torture.clear)
        try:
            yield torture
        finally:
            # In a thread, since ending a worker takes a master that answers.
            await asyncio.to_thread(stack.close)


def _child(windows: Windows) -> list[str]:
    from peers import wine  # noqa: PLC0415 - see above

    return [
        wine.windows_path(windows.python),
        "-S",
        wine.windows_path(wine.INSIDE / "child.py"),
    ]


@contextlib.contextmanager
def _ours(
    master: Master, windows: Windows, home: Path, name: str
) -> Iterator[subprocess.Popen[bytes]]:
    from peers import wine  # noqa: PLC0415 - see above

    home.mkdir()
    token = home / "token"
    token.touch(mode=0o600)
    token.write_text(master.password)
    output = wine.Output()
    process = windows.start(
        *("-m", "hostler_agent", "run", "--name", name),
        *("--hub", f"ws://127.0.0.1:{master.port}/", "--token-file", wine.windows_path(token)),
        *("--workdir", wine.windows_path(home / "work")),
        stdout=output.target,
        stderr=output.target,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        output.close()


def _stock(
    master: Master, windows: Windows, home: Path, name: str
) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    from peers import wine_buildbot  # noqa: PLC0415 - see above

    return wine_buildbot.running(windows, home, master.port, name, master.password)


def _has(pid: int, mark: bytes) -> bool:
    try:
        return mark in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
