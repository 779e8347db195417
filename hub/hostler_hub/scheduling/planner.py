"""The planner: assigns builds to workers. Pure and level-triggered.

Each plan is made from the present state alone; only the share of builds that each worker has got
(``Shares``) is kept between plans.

Order of builds: the higher priority, then the older one. Every fourth slot goes to the build that
has waited longest, if it has waited for more than an hour, so that no priority keeps another build
out for ever. Order of the workers that fit: one with a free slot, then one whose instance is
starting, then one to start; among these the higher priority, then the one that has got fewer builds
in proportion to its weight.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from hostler_hub.lifecycle.model import State, Worker, why_not_leasable, why_not_startable
from hostler_hub.runtime.ids import earliest_ulid, ulid_ms
from hostler_hub.scheduling.matching import Matcher, Traits
from hostler_hub.specs.build import BuildSpec

LimitKey = Hashable
"""Names a budget that starts share: a pool's, or that of a failure domain whose breaker is open."""

# One slot in so many goes to the build that has waited longest.
TURNS = 4
STARVING_S = 3600.0


@dataclass(frozen=True, slots=True)
class Waiting:
    """A queued build.

    ``attempts``: how many it has had. ``not_before``: when it may be retried (seconds since the
    epoch); 0: at once.
    """

    id: str
    spec: BuildSpec
    attempts: int
    priority: int
    not_before: float = 0.0
    kind: str = field(init=False, repr=False, compare=False)
    """what it requires, as text: builds of one kind fit the same workers"""

    def __post_init__(self) -> None:
        kind = json.dumps(self.spec.requires.model_dump(mode="json"), sort_keys=True)
        object.__setattr__(self, "kind", kind)

    @property
    def submitted_at(self) -> float:
        return ulid_ms(self.id) / 1000

    @property
    def order(self) -> tuple[int, str]:
        return (-self.priority, self.id)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A worker in one plan. ``limits`` are the keys of the budgets that its start uses up: its
    pool's, and those of open breakers.
    """

    life: Worker
    traits: Traits
    limits: Sequence[LimitKey] = ()
    priority: int = 0
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Budget:
    """How many instances may be started now: ``starts``, None for any number.

    ``rule`` (a word) and ``why`` (a sentence) say what limits it; ``until`` is when the limit ends
    (seconds since the epoch), None if time does not decide.
    """

    starts: int | None = None
    rule: str = ""
    why: str = ""
    until: float | None = None


def tightest(budgets: Iterable[Budget]) -> Budget:
    """The budget that allows the fewest starts; an unlimited one if there is none."""
    limited = [each for each in budgets if each.starts is not None]
    return min(limited, key=lambda each: each.starts or 0, default=Budget())


class Starts:
    """The starts that the budgets still allow, as they are used up one after the other."""

    def __init__(self, budgets: Mapping[LimitKey, Budget]) -> None:
        self._budgets = budgets
        self._left = {
            key: budget.starts for key, budget in budgets.items() if budget.starts is not None
        }

    def take(self, limits: Sequence[LimitKey]) -> Budget | None:
        """Use up one start of each budget that limits it. Returns None, or the budget that has
        none left; then nothing is used up.
        """
        limited = [key for key in limits if key in self._left]
        for key in limited:
            if self._left[key] <= 0:
                return self._budgets[key]
        for key in limited:
            self._left[key] -= 1
        return None


@dataclass(slots=True)
class Plan:
    """What to do now.

    ``leases``: pairs of a build and the worker whose slot it gets. ``wanted``: pairs of a worker to
    start and the build that it is started for.
    """

    leases: list[tuple[Waiting, str]] = field(default_factory=list)
    wanted: list[tuple[str, Waiting]] = field(default_factory=list)


class Shares:
    """How many builds each worker has got, divided by its weight (start-time fair queueing).

    A worker that got no builds for a while is not compensated: its share is raised to the level
    of the others.
    """

    def __init__(self) -> None:
        self._given: dict[str, float] = {}
        self._floor = 0.0

    def of(self, name: str) -> float:
        return max(self._given.get(name, 0.0), self._floor)

    def charge(self, name: str, weight: float) -> None:
        self._floor = self.of(name)
        self._given[name] = self._floor + 1 / weight

    def keep(self, names: Iterable[str]) -> None:
        """Forget the workers that are gone."""
        self._given = {name: self._given[name] for name in names if name in self._given}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The input of a plan besides the queue."""

    candidates: Sequence[Candidate]
    matcher: Matcher
    budgets: Mapping[LimitKey, Budget] = field(default_factory=dict)
    shares: Shares = field(default_factory=Shares)
    turn: int = 0  # slots given so far


def plan(queue: Iterable[Waiting], snapshot: Snapshot, starving: Sequence[Waiting] = ()) -> Plan:
    """Assign builds to slots, and choose workers to start.

    ``queue``: the builds that may start, in order of precedence. ``starving``: those of them that
    have waited too long, the oldest first.
    """
    room = _Room(snapshot)
    made = Plan()
    turns = _Turns(queue, starving)
    while not room.used_up:
        build = turns.next(oldest=(snapshot.turn + len(made.leases)) % TURNS == TURNS - 1)
        if build is None:
            break
        if build.kind in room.hopeless:
            continue
        if (worker := room.take_slot(build)) is not None:
            made.leases.append((build, worker))
        elif room.take_coming(build):
            pass  # an instance that boots already has room for it
        elif (worker := room.wake(build)) is not None:
            made.wanted.append((worker, build))
        else:
            room.hopeless.add(build.kind)
    return made


def starving(queue: Sequence[Waiting], now: float) -> list[Waiting]:
    """The builds of ``queue`` that have waited for more than ``STARVING_S``, the oldest first."""
    cutoff = earliest_ulid(int((now - STARVING_S) * 1000))  # ids begin with their time
    return sorted((build for build in queue if build.id < cutoff), key=lambda each: each.id)


class _Turns:
    """The order in which a plan looks at builds: the queue, with starving builds put in at their
    turns. Each build comes once.
    """

    def __init__(self, queue: Iterable[Waiting], starving: Sequence[Waiting]) -> None:
        self._queue = iter(queue)
        self._starving = iter(starving)
        self._done: set[str] = set()

    def next(self, *, oldest: bool) -> Waiting | None:
        """The next build, or None at the end. ``oldest``: the starving build that has waited
        longest, if there is one.
        """
        build = self._new(self._starving) if oldest else None
        if build is None:
            build = self._new(self._queue)
        if build is not None:
            self._done.add(build.id)
        return build

    def _new(self, builds: Iterator[Waiting]) -> Waiting | None:
        return next((build for build in builds if build.id not in self._done), None)


class _Room:
    """The slots that one plan may still give away: free ones, those of starting instances, and
    those of workers that may be started.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self._matcher = snapshot.matcher
        self._starts = Starts(snapshot.budgets)
        self._candidates = {each.life.name: each for each in snapshot.candidates}
        free, coming, startable = (
            _Slots(snapshot.shares),
            _Slots(snapshot.shares),
            _Slots(snapshot.shares),
        )
        for candidate in snapshot.candidates:
            life = candidate.life
            if why_not_leasable(life) is None:
                free.add(candidate, life.free_slots)
            elif life.state is State.SUBSTANTIATING and why_not_startable(life) is None:
                coming.add(candidate, life.policy.max_builds)
            elif life.state is State.LATENT and why_not_startable(life) is None:
                startable.add(candidate, 1)
        self._free, self._coming, self._startable = free, coming, startable
        self.hopeless: set[str] = set()  # kinds of builds that found nothing left in this plan

    @property
    def used_up(self) -> bool:
        """Whether no slot is left for any build, so that the rest of the queue need not
        be looked at.
        """
        return not (self._free.left or self._coming.left or self._startable.left)

    def take_slot(self, build: Waiting) -> str | None:
        """Take a free slot for the build. Returns the worker's name, or None."""
        return self._free.take(build.kind, self._fitting(build))

    def take_coming(self, build: Waiting) -> bool:
        """Take a slot of a starting instance for the build. Returns whether there was one."""
        return self._coming.take(build.kind, self._fitting(build)) is not None

    def wake(self, build: Waiting) -> str | None:
        """Choose a worker to start for the build that every budget of its allows to start. Returns
        its name, or None. Its other slots count as those of a starting instance.
        """
        fitting = self._fitting(build)
        while (name := self._startable.take(build.kind, fitting)) is not None:
            candidate = self._candidates[name]
            if self._starts.take(candidate.limits) is not None:
                continue  # nor may any other build start it in this plan
            self._coming.more(candidate, candidate.life.policy.max_builds - 1)
            return name
        return None

    def _fitting(self, build: Waiting) -> frozenset[str]:
        return self._matcher.fitting(build.kind, build.spec.requires)


class _Slots:
    """Slots in the order in which they are given away. For each kind of build an iterator passes
    over the slots of the workers that fit.
    """

    def __init__(self, shares: Shares) -> None:
        self._shares = shares
        self._ranked: list[tuple[float, float, str, int]] = []
        self._sorted = False
        self._taken: set[tuple[str, int]] = set()
        self._later: list[tuple[str, int]] = []
        self._looked_at: dict[str, int] = {}
        self._lists: dict[str, Iterator[tuple[float, float, str, int]]] = {}
        self.left = 0

    def add(self, candidate: Candidate, slots: int) -> None:
        name, start = candidate.life.name, self._shares.of(candidate.life.name)
        self._ranked.extend(
            (-candidate.priority, start + index / candidate.weight, name, index)
            for index in range(slots)
        )
        self.left += slots

    def more(self, candidate: Candidate, slots: int) -> None:
        """Add the further slots of a worker that this plan starts. They are given away
        after all others.
        """
        first = -slots  # numbers that add() never uses
        self._later.extend((candidate.life.name, first + each) for each in range(slots))
        self.left += slots

    def take(self, kind: str, fitting: frozenset[str]) -> str | None:
        """Take the first slot that is left of a worker in ``fitting``, the workers that fit this
        kind of build. Returns the worker's name, or None.
        """
        if self.left == 0:
            return None
        if kind not in self._lists:
            self._lists[kind] = self._list(fitting)
        for _, _, name, index in self._lists[kind]:
            if (name, index) not in self._taken:
                return self._took(name, index)
        return self._take_later(kind, fitting)

    def _take_later(self, kind: str, fitting: frozenset[str]) -> str | None:
        at = self._looked_at.get(kind, 0)  # the list only grows: what was passed over stays so
        while at < len(self._later):
            name, index = self._later[at]
            at += 1
            if name in fitting and (name, index) not in self._taken:
                self._looked_at[kind] = at
                return self._took(name, index)
        self._looked_at[kind] = at
        return None

    def _took(self, name: str, index: int) -> str:
        self._taken.add((name, index))
        self.left -= 1
        return name

    def _list(self, fitting: frozenset[str]) -> Iterator[tuple[float, float, str, int]]:
        if not self._sorted:
            self._ranked.sort()
            self._sorted = True
        return (slot for slot in self._ranked if slot[2] in fitting)
