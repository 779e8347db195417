"""The limits that a pool's workers share: on starts, on idle instances, on giving up lost workers.

A pool is a group, or the workers of one driver that are in no group. The decisions are pure:
``Pool`` remembers recent starts and losses, ``Census`` counts the workers, and each answer
names its rule.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from hostler_hub.lifecycle.model import State, Worker, why_not_leasable
from hostler_hub.scheduling.planner import Budget, tightest
from hostler_hub.scheduling.pool_key import PoolKey
from hostler_hub.specs.group import GroupDefinition
from hostler_hub.specs.schedules import InForce, in_force

MINUTE_S = 60.0
# A11: when more than this share of a pool, and at least so many workers, are lost within a minute,
# it is hardly the workers' fault: none is given up until they are back, or for so long.
LOST_SHARE = 0.55
LOST_LEAST = 5
HOLD_LONGEST_S = 900.0
# The last of them come back later than the first: an agent waits up to 120 s between its tries.
BACK_S = 180.0
# Otherwise one lost worker is given up, and one surplus instance stopped, at most this often.
FORCED_EVERY_S = 10.0


@dataclass(slots=True)
class Census:
    """How many of a pool's workers are in each state.

    ``detached`` counts those that are up without an agent; ``idle`` has the names of those
    that are up and could be leased. Permanent workers are not counted in ``starting``,
    ``stopping`` and ``idle``.
    """

    workers: int = 0
    starting: int = 0
    up: int = 0
    detached: int = 0
    stopping: int = 0
    leases: int = 0
    idle: set[str] = field(default_factory=set)

    @property
    def instances(self) -> int:
        """The instances that are not proven gone: a stop that fails frees no room (V3)."""
        return self.starting + self.up + self.stopping

    def count(self, life: Worker, by: int = 1) -> None:
        """Add a worker in its present state, or subtract it in its former state (``by=-1``)."""
        self.workers += by
        up = life.state is State.SUBSTANTIATED
        self.up += by * up
        self.detached += by * (up and not life.attached)
        self.leases += by * len(life.leases)
        if life.policy.permanent:
            return
        self.starting += by * (life.state is State.SUBSTANTIATING)
        self.stopping += by * (life.state is State.INSUBSTANTIATING)
        self.idle.discard(life.name)
        if by > 0 and up and not life.in_use and why_not_leasable(life) is None:
            self.idle.add(life.name)


@dataclass(slots=True)
class Pool:
    """One pool's group definition, and its recent starts and losses (seconds since the epoch)."""

    key: PoolKey
    group: GroupDefinition | None = None
    starts: deque[float] = field(default_factory=deque)
    lost: dict[str, float] = field(default_factory=dict)
    held_since: float | None = None
    back_since: float | None = None
    gave_up_at: float = float("-inf")
    surplus_at: float = float("-inf")
    leaving: set[str] = field(default_factory=set)  # allowed to stop, not yet committed
    _in_force: tuple[float, InForce] = (float("-inf"), InForce())

    @property
    def title(self) -> str:
        return self.key.title

    def numbers(self, now: float) -> InForce:
        """The min_idle and max_instances in force at ``now``; cached until the next schedule window
        begins or ends.
        """
        if self.group is None:
            return InForce()
        asked_at, known = self._in_force
        if not asked_at <= now < (known.until or float("inf")) or asked_at == float("-inf"):
            group = self.group
            known = in_force(group.min_idle, group.max_instances, group.schedules, now)
            self._in_force = (now, known)
        return known

    def define(self, group: GroupDefinition | None) -> None:
        self.group = group
        self._in_force = (float("-inf"), InForce())

    # --- starts -----------------------------------------------------------------------------------

    def started(self, at: float) -> None:
        self._forget_starts(at)
        self.starts.append(at)

    def budget(self, census: Census, now: float) -> Budget:
        """How many instances may be started now, by the limit that allows the fewest."""
        self._forget_starts(now)
        return tightest(self._group_limits(census, now))

    def _group_limits(self, census: Census, now: float) -> Iterable[Budget]:
        if self.group is None:
            return
        most = self.numbers(now).max_instances
        if most is not None:
            left = max(0, most - census.instances)
            why = f"{self.title}: {census.instances} of at most {most} instances"
            yield Budget(left, "max_instances", why)
        if (most := self.group.max_starting) is not None:
            left = max(0, most - census.starting)
            why = f"{self.title}: {census.starting} of at most {most} starts at once"
            yield Budget(left, "max_starting", why)
        if (most := self.group.max_starts_per_minute) is not None:
            left = max(0, most - len(self.starts))
            until = self.starts[0] + MINUTE_S if self.starts else None
            why = f"{self.title}: {len(self.starts)} of at most {most} starts in a minute"
            yield Budget(left, "max_starts_per_minute", why, until)

    def _forget_starts(self, now: float) -> None:
        while self.starts and not _within(self.starts[0], MINUTE_S, now):
            self.starts.popleft()

    # --- stops ------------------------------------------------------------------------------------

    def spared(self, census: Census, now: float) -> str | None:
        """Why min_idle forbids to stop an idle instance now, or None if one may be stopped."""
        least = self.numbers(now).min_idle
        idle = len(census.idle) - sum(name in census.idle for name in self.leaving)
        if idle > least:
            return None
        return f"{self.title} keeps {least} idle, and {idle} are"

    def missing_idle(self, census: Census, now: float) -> int:
        """How many instances to start so that min_idle become idle; those that are starting
        count as idle.
        """
        return max(0, self.numbers(now).min_idle - len(census.idle) - census.starting)

    def surplus(self, census: Census, now: float) -> int:
        """How many instances are starting or up beyond max_instances, after a schedule or a new
        definition has lowered it.
        """
        most = self.numbers(now).max_instances
        return 0 if most is None else max(0, census.starting + census.up - most)

    # --- losses -----------------------------------------------------------------------------------

    def mass_loss(self, worker: str, census: Census, at: float) -> tuple[int, int] | None:
        """Count the workers lost within the last minute, ``worker`` included (A11).

        Returns (lost, workers that were up) if these are too many to be the workers' own
        fault, else None.
        """
        lost = {name for name, since in self.lost.items() if _within(since, MINUTE_S, at)}
        lost.add(worker)
        of = max(census.up, len(lost))
        if len(lost) < LOST_LEAST or len(lost) <= LOST_SHARE * of:
            return None
        return len(lost), of

    def held(self, census: Census, now: float) -> bool:
        """Whether no lost worker is given up now, because most of the pool was lost at once.

        The hold lasts while most of the pool is detached and ``BACK_S`` longer, but no more than
        ``HOLD_LONGEST_S`` (V17). Calling this ends a hold that is over.
        """
        if self.held_since is None or not _within(self.held_since, HOLD_LONGEST_S, now):
            self.held_since = self.back_since = None
        elif census.detached > LOST_SHARE * census.up:
            self.back_since = None
        elif self.back_since is None:
            self.back_since = now
        elif not _within(self.back_since, BACK_S, now):
            self.held_since = self.back_since = None
        return self.held_since is not None

    def next_giving_up_s(self, now: float) -> float:
        """How many seconds the next lost worker has to wait before it is given up."""
        within = _within(self.gave_up_at, FORCED_EVERY_S, now)
        return self.gave_up_at + FORCED_EVERY_S - now if within else 0.0

    def next_surplus_s(self, now: float) -> float:
        """How many seconds it is until another surplus instance may be stopped."""
        within = _within(self.surplus_at, FORCED_EVERY_S, now)
        return self.surplus_at + FORCED_EVERY_S - now if within else 0.0


def _within(at: float, seconds: float, now: float) -> bool:
    """Whether ``at`` was less than ``seconds`` ago. A time in the future, from before the clock was
    set back, does not count.
    """
    return 0 <= now - at < seconds


def census(lives: Iterable[tuple[PoolKey, Worker]]) -> dict[PoolKey, Census]:
    """Count instances per pool. Input: pairs of pool and worker."""
    counted: dict[PoolKey, Census] = {}
    for pool, life in lives:
        if pool not in counted:
            counted[pool] = Census()
        counted[pool].count(life)
    return counted
