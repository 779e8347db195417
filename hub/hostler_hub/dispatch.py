"""Which build goes to which worker, and why: a pure choice and the loop that acts on it.

``plan()`` looks at the queue and at the workers and says which slots to lease and which workers to
wake; it is level-triggered: nothing is remembered between two looks, so nothing can be forgotten.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog
from sqlalchemy import Connection

from hostler_hub.clock import Clock
from hostler_hub.controller import Controller
from hostler_hub.errors import NotFound
from hostler_hub.identifiers import new_ulid
from hostler_hub.lifecycle import IllegalTransition, events
from hostler_hub.lifecycle.model import State, Worker, why_not_leasable, why_not_startable
from hostler_hub.registry import Entry, Registry
from hostler_hub.services import Lease
from hostler_hub.specs import BuildSpec, Requirements
from hostler_hub.store import builds
from hostler_hub.store.engine import Store
from hostler_hub.store.errors import StaleRow

_log = structlog.get_logger(__name__)

RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class Waiting:
    """A build in the queue."""

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
    def order(self) -> tuple[int, str]:
        return (-self.priority, self.id)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A worker as far as a build may ask of it."""

    life: Worker
    driver: str
    labels: frozenset[str]
    properties: Mapping[str, Any]


@dataclass(slots=True)
class Plan:
    """What to do now: leases as (build, worker), and workers to wake for a build each."""

    leases: list[tuple[Waiting, str]] = field(default_factory=list)
    wanted: list[tuple[str, str]] = field(default_factory=list)


def mismatches(requires: Requirements, candidate: Candidate) -> list[str]:
    """What the build requires and this worker does not have; empty when it fits."""
    missing = []
    if requires.worker is not None and requires.worker != candidate.life.name:
        missing.append(f"the build asks for worker {requires.worker}")
    if requires.driver is not None and requires.driver != candidate.driver:
        missing.append(f"its driver is {candidate.driver}, not {requires.driver}")
    absent = [label for label in requires.labels if label not in candidate.labels]
    missing.extend(f"it has no label {label}" for label in absent)
    for key, value in requires.properties.items():
        if candidate.properties.get(key) != value:
            has = repr(candidate.properties.get(key)) if key in candidate.properties else "not set"
            missing.append(f"its property {key} is {has}, not {value!r}")
    return missing


def plan(queue: Iterable[Waiting], candidates: Sequence[Candidate]) -> Plan:
    """The choice. ``queue`` is in order of precedence; earlier builds choose first."""
    room = _Room(candidates)
    made = Plan()
    hopeless: set[str] = set()  # kinds of builds that found nothing left in this look
    for build in queue:
        if room.used_up:
            break
        if build.kind in hopeless:
            continue
        fitting = room.fitting(build.kind, build.spec.requires)
        if (worker := room.take_slot(fitting)) is not None:
            made.leases.append((build, worker))
        elif room.take_coming(fitting):
            pass  # an instance that boots already has room for it
        elif (worker := room.wake(fitting)) is not None:
            made.wanted.append((worker, build.id))
        else:
            hopeless.add(build.kind)
    return made


class _Room:
    """Free, coming and startable slots, as one look uses them up."""

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self._candidates = candidates
        self._fitting: dict[str, list[Candidate]] = {}
        self._free: dict[str, int] = {}
        self._coming: dict[str, int] = {}
        self._startable: set[str] = set()
        for candidate in candidates:
            self._count(candidate.life)

    def _count(self, life: Worker) -> None:
        if why_not_leasable(life) is None:
            self._free[life.name] = life.free_slots
        elif life.state is State.SUBSTANTIATING and why_not_startable(life) is None:
            self._coming[life.name] = life.policy.max_builds
        elif life.state is State.LATENT and why_not_startable(life) is None:
            self._startable.add(life.name)

    @property
    def used_up(self) -> bool:
        """Whether nothing is left for any build: the rest of a long queue need not be looked at."""
        return not (self._free or self._coming or self._startable)

    def fitting(self, kind: str, requires: Requirements) -> list[Candidate]:
        if kind not in self._fitting:
            fits = [each for each in self._candidates if not mismatches(requires, each)]
            self._fitting[kind] = [each for each in fits if self._has_any(each.life.name)]
        return self._fitting[kind]

    def _has_any(self, name: str) -> bool:
        return name in self._free or name in self._coming or name in self._startable

    def take_slot(self, fitting: list[Candidate]) -> str | None:
        return _take(self._free, fitting)

    def take_coming(self, fitting: list[Candidate]) -> bool:
        return _take(self._coming, fitting) is not None

    def wake(self, fitting: list[Candidate]) -> str | None:
        for candidate in fitting:
            name = candidate.life.name
            if name in self._startable:
                self._startable.discard(name)
                if candidate.life.policy.max_builds > 1:
                    self._coming[name] = candidate.life.policy.max_builds - 1
                return name
        return None


def _take(slots: dict[str, int], fitting: list[Candidate]) -> str | None:
    if not slots:
        return None
    for candidate in fitting:
        name = candidate.life.name
        if slots.get(name, 0) > 0:
            slots[name] -= 1
            if slots[name] == 0:
                del slots[name]
            return name
    return None


def explain(build: Waiting, candidates: Sequence[Candidate]) -> dict[str, list[str]]:
    """For each worker, why the build is not on it."""
    reasons = {}
    for candidate in candidates:
        missing = mismatches(build.spec.requires, candidate)
        if not missing:
            refusal = why_not_leasable(candidate.life)
            missing = [refusal] if refusal else ["it is free; the build is next"]
        reasons[candidate.life.name] = missing
    return reasons


def candidate_of(entry: Entry) -> Candidate:
    definition = entry.definition
    labels = frozenset(definition.labels)
    return Candidate(entry.life, definition.driver, labels, entry.properties)


class Backlog(Protocol):
    """The queue as the dispatcher sees it."""

    def ready(self, now: float) -> list[Waiting]: ...
    def next_ready_at(self, now: float) -> float | None: ...
    def taken(self, build: str) -> None: ...


class Dispatcher:
    """Looks whenever something became possible, and acts on the plan."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        registry: Registry,
        controller: Controller,
        backlog: Backlog,
        on_leased: Callable[[Lease, BuildSpec, Sequence[Any]], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._registry = registry
        self._controller = controller
        self._backlog = backlog
        self._on_leased = on_leased
        self._woken = asyncio.Event()

    def wake(self) -> None:
        self._woken.set()

    async def run(self) -> None:
        """Look, act, wait; for as long as the hub runs."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            try:
                await self.look()
            except Exception as error:  # noqa: BLE001 - one bad look must not end dispatching
                _log.error("dispatch failed", exc_info=error)
                self._clock.call_at(self._clock.now() + RETRY_S, self.wake)

    async def look(self) -> None:
        now = self._clock.now()
        queue = self._backlog.ready(now)
        later = self._backlog.next_ready_at(now)
        if later is not None:
            self._clock.call_at(later, self.wake)
        if not queue:
            return
        made = plan(queue, [candidate_of(entry) for entry in self._registry])
        leasing = [self._lease(build, worker) for build, worker in made.leases]
        waking = [self._want(worker, build) for worker, build in made.wanted]
        await asyncio.gather(*leasing, *waking)

    async def _want(self, worker: str, build: str) -> None:
        now = self._clock.now()
        event = events.Wanted(at=now, instance=new_ulid(int(now * 1000)), cause=f"build {build}")
        try:
            await self._controller.handle(worker, event)
        except NotFound:
            self.wake()  # removed in this moment: look again

    async def _lease(self, build: Waiting, worker: str) -> None:
        """V5, V9: the build's and the worker's compare-and-set are one transaction."""
        entry = self._registry.find(worker)
        if entry is None or entry.life.instance is None:
            self.wake()
            return
        now = self._clock.now()
        attempt = build.attempts + 1
        lease = Lease(new_ulid(int(now * 1000)), build.id, worker, entry.life.instance.id, attempt)
        steps = _step_rows(build, attempt)

        def start(c: Connection) -> None:
            row = {
                "id": lease.id,
                "build": build.id,
                "worker": worker,
                "instance": lease.instance,
                "epoch": attempt,
                "acquired_at": now,
                "ended_at": None,
                "end_reason": None,
            }
            builds.start(c, build.id, worker, row)
            builds.insert_steps(c, steps)

        try:
            await self._controller.handle(worker, events.Leased(at=now, lease=lease.id), start)
        except StaleRow:
            self._backlog.taken(build.id)  # cancelled in this moment
            return
        except (IllegalTransition, NotFound):
            self.wake()  # the worker changed in this moment: look again
            return
        self._backlog.taken(build.id)
        self._on_leased(lease, build.spec, steps)


def _step_rows(build: Waiting, attempt: int) -> list[dict[str, Any]]:
    return [
        {
            "build": build.id,
            "attempt": attempt,
            "index": index,
            "name": step.name,
            "state": "pending",
            "rc": None,
            "failure_reason": None,
            "started_at": None,
            "finished_at": None,
            "log_size_bytes": 0,
            "receipt": None,
        }
        for index, step in enumerate(build.spec.steps)
    ]
