"""Places for the next jobs, made while nobody waits: cgroups, and in each a process that the
spawner has forked ahead.

The way into a cgroup costs a job 7 ms and more on an idle machine, since the kernel waits until all
processors have taken notice; and a fork costs more than a posix_spawn. A job that finds a place
pays neither. Places are made when no job has begun for a while, and not before, also where all jobs
need a process forked: while a process enters a cgroup, nobody can make or remove one, so that the
end of the job that runs would wait for the place of the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Callable, Optional

assert sys.platform != "win32"

from hostler_agent.jobs.plan import JobPlan, View
from hostler_agent.jobs.posix.cgroup_tree import CgroupTree
from hostler_agent.jobs.posix.spawn import SpawnerClient, needs_fork

MOST = 4
PAUSE_S = 0.02
_CLEAR_DEADLINE_S = 10.0


@dataclass(frozen=True)
class Place:
    """The cgroups for one job. `number` is that of the process which the spawner was asked to fork
    into them, which may be dead by now; then the job is started as without it. `losses`: how many
    spawners had ended by then.
    """

    number: int
    paths: tuple[str, ...]
    losses: int = 0


class ReadyPlaces:
    """The places of one containment. They are made in the event loop."""

    def __init__(
        self,
        spawner: SpawnerClient,
        spare_mark: int,
        make: Callable[[str], tuple[str, ...]],
        entries: Callable[[tuple[str, ...]], Sequence[tuple[str, str]]],
    ) -> None:
        """`make` makes cgroups of a name, `entries` says how they are entered (see Placement)."""
        self._spawner = spawner
        self._spare_mark = spare_mark
        self._make = make
        self._entries = entries
        self.places: list[Place] = []
        """Those that wait for jobs, the next one first."""
        self._stale: list[Place] = []
        """Those of a spawner that has ended: their processes are about to end, too."""
        self._made = 0
        self._later: Optional[asyncio.TimerHandle] = None
        self._filling: Optional[asyncio.Task[None]] = None

    @property
    def paths(self) -> list[str]:
        return [path for place in (*self.places, *self._stale) for path in place.paths]

    def take(self) -> Optional[Place]:
        """A place for a job that begins now; None if there is none."""
        while self.places:
            place = self.places.pop(0)
            if place.losses != self._spawner.losses:
                self._stale.append(place)
                continue
            # The spawner of an agent of our name that was killed may have cleared them up.
            if all(os.path.exists(path) for path in place.paths):  # noqa: PTH110 - once per command
                return place
        return None

    async def replenish(self, wanted: int, plan: JobPlan) -> None:
        """Have places made for as many jobs as run now; the next are taken to be like `plan`. Where
        it takes a process of its own, one is forked at once, for a job that comes before the place.
        """
        self._cancel_later()
        loop = asyncio.get_running_loop()
        # Those of its slot are entered as they are, whatever they are entered from.
        namespace = replace(plan.view, namespaces=()) != View()
        self._later = loop.call_later(PAUSE_S, self._begin, min(wanted, MOST), namespace)
        if needs_fork(plan):
            await self._spawner.prepare(0, (), self._spare_mark, namespace=namespace)

    def close(self) -> list[str]:
        """Make no more. Returns the paths of those that were made and not taken."""
        self._cancel_later()
        if self._filling is not None:
            self._filling.cancel()
        return self.paths

    def _cancel_later(self) -> None:
        if self._later is not None:
            self._later.cancel()
            self._later = None

    def _begin(self, wanted: int, namespace: bool) -> None:
        if self._filling is None or self._filling.done():
            filling = self._fill(wanted, namespace)
            self._filling = asyncio.get_running_loop().create_task(filling, name="ready places")

    async def _fill(self, wanted: int, namespace: bool) -> None:
        while self._stale:
            for path in self._stale[0].paths:
                await CgroupTree(path).empty(_CLEAR_DEADLINE_S)
            self._stale.pop(0)
        # Whatever is wrong with the machine, the next job meets it, and can tell somebody.
        with contextlib.suppress(OSError):
            while len(self.places) < wanted:
                self._made += 1
                paths = self._make(f"ready-{self._made}")
                place = Place(self._made, paths, self._spawner.losses)
                self.places.append(place)
                await self._spawner.prepare(
                    place.number,
                    self._entries(place.paths),
                    self._spare_mark,
                    namespace=namespace,
                )
