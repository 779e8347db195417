"""What it costs to run a job as a user of its own, beside one as the agent's own.

The same jobs in one containment of one process, in turns, so that the same noise is over both.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from benchmarks.processes import BenchmarkFailed
from benchmarks.rows import Goal, Plan, Reference, Row, Samples
from hostler_agent.jobs import Containment, choose_containment
from hostler_agent.jobs.plan import COMMAND_VARIABLE, INSTANCE_VARIABLE, BuildUser, JobPlan
from hostler_agent.jobs.run import Job

IN_FLIGHT = 8
PAUSE_S = 0.1
OWN, OTHER = "as the agent", "as a build user"
# No such user need exist.
USER = BuildUser("hostler-bench", 64207, 64207, (), "/nonexistent")
_TURN = 20
"""How many jobs of one kind are run before it is the other's turn."""


class _Nowhere:
    async def take_output(self, stream: str, data: bytes) -> None: ...
    async def take_log(self, name: str, data: bytes) -> None: ...
    async def stopping(self, why: str) -> None: ...


class Jobs:
    def __init__(self, containment: Containment) -> None:
        self._containment = containment
        self._count = 0

    async def run(self, kind: str) -> None:
        """One job to its receipt."""
        self._count += 1
        command_id = f"c{self._count}"
        markers = {INSTANCE_VARIABLE: self._containment.root_name, COMMAND_VARIABLE: command_id}
        plan = JobPlan(command_id, ("/bin/true",), "/", {**os.environ, **markers})
        plan = replace(plan, user=USER if kind == OTHER else None)
        outcome = await Job(plan, self._containment, _Nowhere()).run()
        if outcome.return_code != 0:
            raise BenchmarkFailed(f"a job {kind} ended with {outcome.return_code}")

    async def serial(self, kind: str, count: int) -> float:
        """Seconds a job, one after the other."""
        began_at = time.perf_counter()
        for _ in range(count):
            await self.run(kind)
        return (time.perf_counter() - began_at) / count

    async def parallel(self, kind: str, count: int) -> float:
        """Seconds a job, so many at a time."""
        each = count // IN_FLIGHT + 1
        began_at = time.perf_counter()
        await asyncio.gather(*(self.serial(kind, each) for _ in range(IN_FLIGHT)))
        return (time.perf_counter() - began_at) / (each * IN_FLIGHT)

    async def rested(self, kind: str, _count: int) -> float:
        """Seconds of a job after a pause, as between the steps of a build."""
        await self.run(kind)
        await asyncio.sleep(PAUSE_S)
        return await self.serial(kind, 1)


def measure(plan: Plan, _directory: Path) -> list[Row]:
    if os.geteuid() != 0:
        raise BenchmarkFailed("only root can start jobs as another user")
    samples = {OWN: Samples(), OTHER: Samples()}
    asyncio.run(_measure(plan, samples))
    return [
        Row(
            f"job {OTHER}, {what}",
            "ms",
            samples[OTHER][what],
            Goal("ratio", "at most", 1.15),
            Reference(f"job {OWN}", samples[OWN][what]),
        )
        for what in ("one after the other", "eight in flight", "after a pause")
    ]


async def _measure(plan: Plan, samples: dict[str, Samples]) -> None:
    containment = choose_containment("auto", f"bench-{secrets.token_hex(4)}")
    jobs = Jobs(containment)
    ways: dict[str, Callable[[str, int], Awaitable[float]]] = {
        "one after the other": jobs.serial,
        "eight in flight": jobs.parallel,
        "after a pause": jobs.rested,
    }
    try:
        for _ in range(max(1, plan.builds // _TURN)):
            for what, way in ways.items():
                for kind, sample in samples.items():
                    await jobs.run(kind)  # what only the first of a kind costs
                    sample.add(what, await way(kind, _TURN) * 1000)
    finally:
        await containment.aclose()
