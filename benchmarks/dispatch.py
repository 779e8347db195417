"""Builds of ``true`` in a second, through the whole hub, against a stock Buildbot doing the same.

Both are real: processes, sockets, one agent or worker a slot, and results that a crash would not
lose, in SQLite on the same disk. Ours are submitted over REST, one request after the other while
the first already run; Buildbot's are added inside its master, which costs it less. Time runs from
the first order to the last result.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import buildbot, hub
from benchmarks.hub import Hub
from benchmarks.rows import Goal, Plan, Reference, Row, Samples

SLOTS = [f"slot-{number}" for number in range(1, 9)]
ONE = SLOTS[0]
QUICK_ONE = "slot-without-nagle"
BUILDERS = {"one": [ONE], "one, without Nagle": [QUICK_ONE], "eight": SLOTS}
GOAL = Goal("ratio", "at least", 10)


def measure(plan: Plan, directory: Path) -> list[Row]:
    ours, theirs = Samples(), Samples()
    theirs_a_round = max(len(SLOTS), plan.builds // 15)
    with _hub(directory / "hub") as fleet, _buildbot(directory / "buildbot") as master:
        for _ in plan.each_round():
            ours.add("one", plan.builds / _build(fleet, ONE, plan.builds))
            for builder in BUILDERS:
                theirs.add(builder, theirs_a_round / master.build(builder, theirs_a_round))
            ours.add("eight", plan.builds / _build(fleet, None, plan.builds))
    return [
        _row("dispatch, one slot", ours["one"], "as shipped", theirs["one"]),
        _row(
            "dispatch, one slot, against a tuned peer",
            ours["one"],
            "worker with TCP_NODELAY",
            theirs["one, without Nagle"],
        ),
        _row("dispatch, eight slots", ours["eight"], "as shipped", theirs["eight"]),
    ]


def _row(name: str, ours: list[float], variant: str, theirs: list[float]) -> Row:
    peer = Reference(f"{buildbot.MASTER}, {variant}", theirs)
    return Row(name, "builds/s", ours, GOAL, peer)


def _build(fleet: Hub, worker: str | None, count: int) -> float:
    """Seconds for so many builds; raises BenchmarkFailed when one does not succeed."""
    began_at = time.monotonic()
    builds = [fleet.submit(worker, "true") for _ in range(count)]
    # They end nearly in order; asking for the last ones waits, asking for the rest only checks.
    for build in builds[-len(SLOTS) :]:
        fleet.await_success(build)
    took_s = time.monotonic() - began_at
    for build in builds:
        fleet.await_success(build)
    return took_s


@contextlib.contextmanager
def _hub(directory: Path) -> Iterator[Hub]:
    with hub.start(directory) as fleet:
        fleet.define(SLOTS)
        fleet.substantiate(SLOTS)
        for name in SLOTS:  # the first build of an agent starts more than the build
            fleet.await_success(fleet.submit(name, "true"))
        yield fleet


@contextlib.contextmanager
def _buildbot(directory: Path) -> Iterator[buildbot.Master]:
    with contextlib.ExitStack() as stack:
        master = stack.enter_context(buildbot.start(directory, BUILDERS))
        names = [*SLOTS, QUICK_ONE]
        for name in names:
            stack.enter_context(master.worker(name, nagle=name != QUICK_ONE))
        master.await_attached(names)
        for builder, own in BUILDERS.items():
            master.build(builder, len(own))
        yield master
