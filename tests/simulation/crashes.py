"""Lets the hub die at named points: see crash_points for those inside its functions."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import crash_points
from crash_points import Death
from simulation.loop import Killed

if TYPE_CHECKING:
    from simulation.world import World


class Trap:
    """Kills the hub that comes to a point, the ``nth`` time; once."""

    def __init__(self, world: World, point: str, nth: int = 1) -> None:
        self._world = world
        self._left = nth
        self.point = point
        self.sprung = False

    def arrives(self) -> bool:
        """Whether the hub is to die of this arrival."""
        if self.sprung or not self._world.hub_lives:
            return False
        self._left -= 1
        if self._left > 0:
            return False
        self.sprung = True
        self._world.note(f"the hub dies {self.point}")
        return True


class Traps:
    """All traps of a world, by point."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.set: dict[str, Trap] = {}

    async def awaited(self, point: str) -> None:
        if point in self.set and self.set[point].arrives():
            assert self._world.run is not None
            await self._world.run.process.die()

    def plain(self, point: str) -> None:
        if point in self.set and self.set[point].arrives():
            self._world.kill_hub()
            raise Killed

    def committing(self, when: str, names: list[str]) -> None:
        for name in names:
            self.plain(f"{when} commit {name.removesuffix('.<locals>.write')}")

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Every point of the hub asks here whether it is to be its last."""
        with contextlib.ExitStack() as stack:
            for point in crash_points.POINTS:
                owner, method = crash_points.place(point, self._world.driver, {})
                stack.enter_context(crash_points.armed(point, owner, method, self._death(point)))
            yield

    def _death(self, point: str) -> Death:
        return Death(lambda: self.awaited(point), lambda: self.plain(point))


@contextlib.contextmanager
def dies(world: World, point: str, nth: int = 1) -> Iterator[Trap]:
    """While it lasts there is a trap at the point: one of POINTS, or before or after a commit."""
    trap = world.traps.set[point] = Trap(world, point, nth)
    try:
        yield trap
    finally:
        del world.traps.set[point]
