"""Explains why queued builds do not run on each worker, why a worker is not started, used or
stopped, and what would have to change.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hostler_hub.errors import InvalidRequest
from hostler_hub.lifecycle.model import (
    Gate,
    Mode,
    State,
    Timer,
    Worker,
    why_not_leasable,
    why_not_startable,
    why_not_usable,
)
from hostler_hub.scheduling.breaker_views import REMEDY
from hostler_hub.scheduling.matching import Matcher, Reason, Roster, fits, mismatches
from hostler_hub.scheduling.planner import Budget, Waiting
from hostler_hub.scheduling.pool_policy import PoolPolicy
from hostler_hub.specs.build import Requirements
from hostler_hub.workers.registry import Entry, Registry
from hostler_hub.workers.views import WorkerReasons

# A sentence names at most so many reasons, the most frequent first.
_SHOWN = 5
# A list explains at most so many builds, and compares about so many pairs of build and worker.
_EXPLAINED = 20
_PAIRS = 20_000
_UP = {State.SUBSTANTIATING, State.SUBSTANTIATED}


@dataclass(frozen=True, slots=True)
class BuildReasons:
    """Why a build waits: ``text`` in one sentence, ``workers`` the reasons for each worker
    by its name.
    """

    text: str
    workers: Mapping[str, list[Reason]]


@dataclass(frozen=True, slots=True)
class Skip:
    """Why a build is passed over, as the log of decisions records it.

    ``rule`` is, of the rules by which the fitting workers do not take the build, the one that is
    likely to let it through soonest (see ``_NEAR``); ``numbers`` counts these workers by rule.
    """

    rule: str
    text: str
    numbers: Mapping[str, Any] = field(default_factory=dict)


class Reasons:
    """Explains the present state of builds and workers."""

    def __init__(self, registry: Registry, roster: Roster, policy: PoolPolicy) -> None:
        self._registry = registry
        self._roster = roster
        self._policy = policy

    def refuse_hopeless(self, requires: Requirements) -> None:
        """Raise InvalidRequest if no defined worker can meet ``requires``; its text says what the
        closest worker lacks.
        """
        matcher = self._roster.matcher()
        if not matcher.fleet:
            raise InvalidRequest("no worker is defined yet: define one first", pointer="/requires")
        if any(fits(requires, each) for each in matcher.fleet):  # mostly the first one does
            return
        nearest = min(matcher.fleet, key=lambda each: len(mismatches(requires, each)))
        missing = [f"{nearest.name}: {each.text}" for each in mismatches(requires, nearest)]
        raise InvalidRequest(
            f"none of the {len(matcher.fleet)} defined workers has what the build requires; "
            f"closest: {'; '.join(missing[:3])}",
            pointer="/requires",
        )

    # --- builds -----------------------------------------------------------------------------------

    def of_build(self, build: Waiting, now: float) -> BuildReasons:
        """Why the queued ``build`` does not run: in one sentence, and for each worker."""
        matcher = self._roster.matcher()
        workers = {
            entry.life.name: self._of_one(build, entry, matcher, now) for entry in self._registry
        }
        return BuildReasons(_summary(build, workers, now), workers)

    def in_words(self, builds: Iterable[Waiting], now: float) -> dict[str, str]:
        """The sentence of of_build() for each build, by build id.

        Only the first builds are explained, since a list must not take long: at most
        ``_EXPLAINED``, and fewer in a fleet of many workers (``_PAIRS``).
        """
        most = min(_EXPLAINED, max(1, _PAIRS // max(1, len(self._registry))))
        return {each.id: self.of_build(each, now).text for each in itertools.islice(builds, most)}

    def _of_one(self, build: Waiting, entry: Entry, matcher: Matcher, now: float) -> list[Reason]:
        missing = mismatches(build.spec.requires, matcher.traits(entry.life.name))
        return missing or [why_not_now(entry.life, self._policy.budget_of(entry, now))]

    def skip_of(self, build: Waiting, now: float) -> Skip:
        """Why ``build`` is passed over now: a rule in one word, a sentence, and the number of
        workers by rule. For the log of decisions.
        """
        if build.not_before > now:
            numbers = {"attempts": build.attempts, "until": build.not_before}
            return Skip("retry_backoff", "it waits before it is tried again", numbers)
        fitting = self._roster.matcher().fitting(build.kind, build.spec.requires)
        counted = Counter(self._rule_of(name, now) for name in fitting)
        rule = min(counted, key=_nearness, default="no_worker_fits")
        text = ", ".join(f"{count} {each}" for each, count in counted.most_common(_SHOWN))
        said = f"{len(fitting)} workers fit: {text}" if fitting else "no worker fits"
        return Skip(rule, said, {"fitting": len(fitting), **counted})

    def _rule_of(self, name: str, now: float) -> str:
        """The rule, in one word, by which a worker that fits does not take a build now."""
        entry = self._registry.find(name)
        if entry is None or entry.life.removing:
            return "removed"
        life = entry.life
        if life.mode is not Mode.ACTIVE:
            return f"mode_{life.mode}"
        if life.quarantine_until is not None:
            return "quarantined"
        if life.person is not None:
            return "leased_by_person"
        if life.state is State.LATENT:
            budget = self._policy.budget_of(entry, now)
            if life.policy.permanent:
                return "not_attached"
            return budget.rule if budget.starts == 0 else "free"
        return _rule_of_instance(life)

    # --- workers ----------------------------------------------------------------------------------

    def of_worker(self, entry: Entry, now: float) -> WorkerReasons:
        """Why the worker is not started, not used and not stopped now; a field is None if it is
        started, used or stopped.
        """
        life = entry.life
        return WorkerReasons(
            not_started=None if life.state in _UP else self._not_started(entry, now),
            not_used=None if life.in_use else self._not_used(entry),
            not_stopped=self._not_stopped(entry, now) if life.state in _UP else None,
        )

    def starts_paused(self, entry: Entry) -> bool:
        """Whether starts of the worker are paused after failures."""
        return self._policy.starts_paused(entry)

    def _not_started(self, entry: Entry, now: float) -> str:
        refusal = why_not_startable(entry.life)
        if refusal is not None:
            return refusal
        budget = self._policy.budget_of(entry, now)
        if budget.starts == 0:
            return budget.why
        return "no queued build needs it"

    def _not_used(self, entry: Entry) -> str:
        return why_not_leasable(entry.life) or "no queued build fits it"

    def _not_stopped(self, entry: Entry, now: float) -> str:
        life = entry.life
        if life.leases:
            return f"it runs {len(life.leases)} build{'' if len(life.leases) == 1 else 's'}"
        if life.person is not None:
            return f"{life.person.holder} has it or waits for it"
        if life.policy.permanent:
            return "its owner starts and stops it"
        if life.state is State.SUBSTANTIATING:
            return "it is starting"
        kept = self._policy.why_kept(entry, now)
        if kept is not None:
            return kept[1]
        if (at := life.timers.get(Timer.IDLE)) is not None:
            return f"it is idle, and stops in {max(0.0, at - now):.0f} s unless work comes"
        if not life.attached:
            return "its agent is lost, and waited for"
        return "build_wait_timeout keeps it until the hub stops"


def why_not_now(life: Worker, budget: Budget | None = None) -> Reason:
    """Why a worker that meets a build's requirements does not run it now. ``budget``: what the
    worker's pool may start.
    """
    if life.state is State.LATENT and why_not_startable(life) is None:
        if budget is not None and budget.starts == 0:
            return Reason(f"it is not started: {budget.why}", _REMEDIES[budget.rule])
        return Reason("it is latent", "nothing: it is started as soon as its turn comes")
    refusal = why_not_leasable(life)
    if refusal is None:
        return Reason("it is free; the build is next", "nothing")
    return Reason(refusal, remedy(life))


_REMEDIES = {
    "max_instances": "wait until an instance is gone, or raise the group's max_instances",
    "max_starting": "wait until another is up, or raise the group's max_starting",
    "max_starts_per_minute": "wait, or raise the group's max_starts_per_minute",
    "breaker": REMEDY,
}

# From rules that let the build through soonest to those that need a person's action.
_NEAR = (
    "free",
    "being_compared",
    "starting",
    "busy",
    "max_starting",
    "max_starts_per_minute",
    "max_instances",
    "stopping",
    "leased_by_person",
    "detached",
    "worn_out",
    "breaker",
    "quarantined",
)


def _nearness(rule: str) -> tuple[int, str]:
    return (_NEAR.index(rule) if rule in _NEAR else len(_NEAR), rule)


def _rule_of_instance(life: Worker) -> str:
    if life.state is State.SUBSTANTIATING:
        return "starting"
    if life.state is State.INSUBSTANTIATING:
        return "stopping"
    if not life.attached:
        return "detached"
    if life.gate is not Gate.OPEN:
        return "being_compared"
    if why_not_leasable(life) is None:
        return "free"
    return "worn_out" if life.free_slots or life.tainted else "busy"


def remedy(life: Worker) -> str:
    """What has to change, in a sentence, before builds may use the worker."""
    if life.removing:
        return "define it again when it is gone"
    if life.mode is not Mode.ACTIVE:
        return "resume it (mode active)"
    if life.quarantine_until is not None:
        return "mend what failed and resume it (mode active), or wait until it is let out"
    if life.person is not None:
        return "wait until the lease ends, or end it with force"
    if life.policy.permanent and not life.attached:
        return "start its agent"
    if why_not_usable(life) is not None or life.state is State.INSUBSTANTIATING:
        return "nothing: a new instance is started when the old one is proven gone"
    return _remedy_of_instance(life)


def _remedy_of_instance(life: Worker) -> str:
    if life.gate is not Gate.OPEN:
        return "wait a minute: its agent is being asked"
    if life.state is State.SUBSTANTIATED and life.attached:
        return "wait for a slot, or define more workers like it"
    return "wait until its agent is attached"


def _summary(build: Waiting, workers: Mapping[str, list[Reason]], now: float) -> str:
    if build.not_before > now:
        return f"it is retried in {build.not_before - now:.0f} s after losing its worker"
    if not workers:
        return "no worker is defined"
    ranked = _ranked(each[0].text for each in workers.values())
    return "; ".join(f"{count} of {len(workers)} workers: {text}" for text, count in ranked)


def _ranked(texts: Iterable[str]) -> list[tuple[str, int]]:
    return Counter(texts).most_common(_SHOWN)
