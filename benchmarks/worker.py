"""What a worker does: commands and output, memory and interrupts; ours beside buildbot-worker.

All of them are driven by the same small master over the same protocol, in turns.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks import buildbot, worker_floors
from benchmarks.processes import BenchmarkFailed
from benchmarks.rows import Goal, Plan, Reference, Row, Samples
from benchmarks.worker_master import Master, Worker
from benchmarks.worker_peers import RAW, SHIPPED, TEXT, TUNED, Attached, Kind, attached

MEGABYTE = 1_000_000
LINE = b"[ 42%] Building CXX object src/CMakeFiles/thing.dir/module/file_of_some_name.cpp.o\n"
IN_FLIGHT = 8
SLOW_S = 6.0
SLOW_BYTES_PER_S = 4 * MEGABYTE
KINDS = (TEXT, RAW, TUNED, SHIPPED)

# Commands per second that were asked for on a machine that makes 1,500 bare spawns one after the
# other and 2,200 side by side. What a machine can do is seen in those, so the goal is the share.
SERIAL_SHARE = 400 / 1500
PARALLEL_SHARE = 600 / 2200


@dataclass(frozen=True)
class Course:
    """The plan, and the files that are commands' output: all of it, and the peers' share."""

    plan: Plan
    large: Path
    small: Path

    def output_of(self, kind: Kind) -> Path:
        return self.large if kind.ours else self.small

    def commands_of(self, kind: Kind) -> int:
        """The slower, the fewer."""
        return self.plan.builds if kind.ours else self.plan.builds // (8 if kind.nagle else 2)


def measure(plan: Plan, directory: Path) -> list[Row]:
    directory.mkdir(parents=True)
    size_bytes = plan.builds * 700_000  # of a full run 210 MB
    course = Course(plan, directory / "large.log", directory / "small.log")
    _write(course.large, size_bytes)
    _write(course.small, size_bytes // 4)
    samples: dict[Kind | None, Samples] = {kind: Samples() for kind in (*KINDS, None)}
    asyncio.run(_measure(course, directory, samples))
    return _rows(samples)


async def _measure(course: Course, directory: Path, samples: dict[Kind | None, Samples]) -> None:
    async with Master().listening() as master:
        for _ in course.plan.each_round(3):
            _floors(course, samples[None])
            for kind in KINDS:
                async with attached(master, kind, directory) as one:
                    await _commands(course, kind, one, samples[kind])
                    if kind is not SHIPPED:
                        await _output(course, kind, one, samples[kind])
                        await _interrupts(one, samples[kind])
                        await _slowly(one, samples[kind])


def _floors(course: Course, samples: Samples) -> None:
    samples.add("serial", worker_floors.spawns_per_s(course.plan.builds))
    samples.add("parallel", worker_floors.spawns_at_once_per_s(course.plan.builds))
    rate = worker_floors.pipe_bytes_per_s(["/bin/cat", str(course.large)])
    samples.add("output", rate / MEGABYTE)


async def _commands(course: Course, kind: Kind, one: Attached, samples: Samples) -> None:
    worker, count = one.worker, course.commands_of(kind)
    await _run(worker, 5)  # what only the first ones cost
    one.forget_peak()
    samples.add("serial", count / await _run(worker, count))
    began_at = time.perf_counter()
    await asyncio.gather(*(_run(worker, count // IN_FLIGHT + 1) for _ in range(IN_FLIGHT)))
    took_s = time.perf_counter() - began_at
    samples.add("parallel", (count // IN_FLIGHT + 1) * IN_FLIGHT / took_s)
    samples.add("commands MiB", one.peak_mib())


async def _run(worker: Worker, count: int) -> float:
    began_at = time.perf_counter()
    for _ in range(count):
        await worker.run(["/bin/true"])
    return time.perf_counter() - began_at


async def _output(course: Course, kind: Kind, one: Attached, samples: Samples) -> None:
    path = course.output_of(kind)
    one.forget_peak()
    began_at = time.perf_counter()
    command = await one.worker.run(["/bin/cat", str(path)])
    took_s = time.perf_counter() - began_at
    size_bytes = path.stat().st_size
    if command.size_bytes != size_bytes:
        raise BenchmarkFailed(f"of {size_bytes} bytes {command.size_bytes} arrived")
    samples.add("output", size_bytes / took_s / MEGABYTE)
    samples.add("output MiB", one.peak_mib())


async def _interrupts(one: Attached, samples: Samples) -> None:
    for _ in range(3):
        command = await one.worker.start(["/usr/bin/yes", LINE.decode().strip()])
        await command.heard.wait()
        await asyncio.sleep(0.2)  # the flood fills all that there is on the way
        samples.add("interrupt", await one.worker.interrupt(command) * 1000)
        await command.end()


async def _slowly(one: Attached, samples: Samples) -> None:
    """The last thing that is asked of it: a backlog may be left, and goes with its process."""
    one.forget_peak()
    command = await one.worker.start(["/usr/bin/yes", LINE.decode().strip()])
    await command.heard.wait()
    one.worker.pace = SLOW_BYTES_PER_S
    await asyncio.sleep(SLOW_S)
    samples.add("slow MiB", one.peak_mib())
    one.worker.cut()


def _write(path: Path, size_bytes: int) -> None:
    with open(path, "wb") as file:
        file.writelines(LINE * 1000 for _ in range(size_bytes // (len(LINE) * 1000) + 1))


def _rows(samples: dict[Kind | None, Samples]) -> list[Row]:
    ours, raw, floor = samples[TEXT], samples[RAW], samples[None]

    def peer(key: str, kind: Kind = TUNED) -> Reference:
        name = buildbot.WORKER + (", as shipped" if kind is SHIPPED else ", TCP_NODELAY")
        return Reference(name, samples[kind][key])

    rows = []
    for key, what, share, bare in (
        ("serial", "commands, one after the other", SERIAL_SHARE, "subprocess.Popen"),
        ("parallel", "commands, eight in flight", PARALLEL_SHARE, "posix_spawn"),
    ):
        goal, beaten = Goal("ratio", "at least", round(share, 3)), Goal("ratio", "at least", 1)
        bare_spawns = Reference(bare, floor[key])
        rows += [
            Row(what, "/s", ours[key], goal, bare_spawns),
            Row(f"{what}, raw", "/s", raw[key], goal, bare_spawns),
            Row(what, "/s", ours[key], beaten, peer(key)),
            Row(what, "/s", ours[key], beaten, peer(key, SHIPPED)),
        ]
    pipe = Reference("bare pipe, decoded", floor["output"])
    text_goal, raw_goal = Goal("value", "at least", 100), Goal("value", "at least", 250)
    rows += [
        Row("output, text", "MB/s", ours["output"], text_goal, peer("output")),
        Row("output, text", "MB/s", ours["output"], text_goal, pipe),
        Row("output, raw", "MB/s", raw["output"], raw_goal, peer("output")),
        Row("output, raw", "MB/s", raw["output"], raw_goal, pipe),
    ]
    small, soon = Goal("value", "at most", 48), Goal("value", "at most", 50)
    for key, what in (
        ("commands MiB", "peak memory, commands"),
        ("output MiB", "peak memory, output"),
        ("slow MiB", "peak memory, slow master"),
    ):
        rows += [
            Row(f"{what}, text", "MiB", ours[key], small, peer(key)),
            Row(f"{what}, raw", "MiB", raw[key], small, peer(key)),
        ]
    return [
        *rows,
        Row("interrupt in a flood, text", "ms", ours["interrupt"], soon, peer("interrupt")),
        Row("interrupt in a flood, raw", "ms", raw["interrupt"], soon, peer("interrupt")),
    ]
