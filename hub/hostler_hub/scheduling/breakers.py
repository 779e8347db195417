"""The breakers of all failure domains: which starts they pause, and what opens and closes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hostler_hub.lifecycle import events
from hostler_hub.lifecycle.model import Gate, Mode, State
from hostler_hub.runtime.clock import clock_time
from hostler_hub.scheduling.breaker import Breaker, Lane
from hostler_hub.scheduling.failure_domains import Link
from hostler_hub.scheduling.planner import Budget, LimitKey
from hostler_hub.workers.decisions import Decision, DecisionKind, Transition

DomainLimit = tuple[str, Lane]
"""The key of a budget of starts: the failure domain whose breaker is open, and the lane."""

_ERROR_SIZE = 500
_MEMBERS_STORED = 100


@dataclass(slots=True)
class _Domain:
    """A failure domain with failures, or with starts that may fail.

    ``logged_until``: the breaker's ``open_until`` that the last decision says. ``proven``: the
    members whose last start succeeded. ``starting``: when each worker that is starting was started.
    ``tried``: the starts let through by lane since the breaker opened.
    """

    breaker: Breaker = field(default_factory=Breaker)
    logged_until: float | None = None
    proven: set[str] = field(default_factory=set)
    starting: dict[str, float] = field(default_factory=dict)
    tried: Counter[Lane] = field(default_factory=Counter)

    def replace_breaker(self, breaker: Breaker) -> None:
        if breaker.open_until != self.breaker.open_until:
            self.tried.clear()
        self.breaker = breaker

    def under_way(self, lane: Lane, now: float) -> int:
        """The starts that count against the lane; see ``Breaker.starts``."""
        if lane is not Lane.PROBE:
            return self.tried[lane]
        since = self.breaker.probes_since(now)
        return sum(since <= at <= now for at in self.starting.values())


@dataclass(frozen=True, slots=True)
class Paused:
    """A failure domain whose starts are paused, or where a single one is tried."""

    domain: str
    breaker: Breaker


class Breakers:
    """The breakers by failure domain.

    ``changes`` says what a transition makes of them, ``happened`` notes one that is committed.
    Domains in which nothing fails and nothing starts take no memory but for what has proven itself.
    """

    def __init__(self) -> None:
        self._domains: dict[str, _Domain] = {}
        self._open: set[str] = set()
        self._started: dict[str, tuple[Link, ...]] = {}  # the links of each worker that is starting

    def __bool__(self) -> bool:
        """Whether any breaker is open or half open."""
        return bool(self._open)

    def load(self, domain: str, numbers: Mapping[str, Any]) -> None:
        """Restore an open breaker from the numbers of the decision that opened it."""
        members = numbers.get("failed", numbers.get("workers", ()))
        made = Breaker(
            failures=numbers["failures"],
            failed_members=frozenset(members),
            error=numbers["error"],
            allowed=numbers.get("allowed", 1),
            open_until=numbers["open_until"],
            pause_s=numbers["pause_s"],
        )
        self._replace(domain, made)
        self._domain(domain).logged_until = made.open_until

    # --- what they let through --------------------------------------------------------------------

    def limits(self, found: Iterable[Link]) -> tuple[DomainLimit, ...]:
        """The budgets that a start of the worker with these links would use up."""
        return tuple((link.domain, self._lane(link)) for link in found if link.domain in self._open)

    def budgets(self, now: float) -> dict[LimitKey, Budget]:
        """How many starts each open breaker lets through in each lane."""
        return {
            (domain, lane): self._budget(domain, lane, now)
            for domain in self._open
            for lane in Lane
        }

    def budget_of(self, found: Iterable[Link], now: float) -> list[Budget]:
        """The budgets that a start of the worker with these links would use up."""
        return [self._budget(domain, lane, now) for domain, lane in self.limits(found)]

    def paused(self) -> list[Paused]:
        """The domains whose breaker is not closed, by name."""
        return [Paused(domain, self._domains[domain].breaker) for domain in sorted(self._open)]

    def is_open(self, domain: str) -> bool:
        return domain in self._open

    def of(self, domain: str) -> Breaker:
        """The breaker of a domain; a closed one if nothing failed there."""
        known = self._domains.get(domain)
        return known.breaker if known else Breaker()

    def _budget(self, domain: str, lane: Lane, now: float) -> Budget:
        known = self._domains[domain]
        breaker = known.breaker
        starts = breaker.starts(now, lane, known.under_way(lane, now))
        until = breaker.open_until
        return Budget(
            starts,
            "breaker",
            sentence(domain, breaker, now),
            until if until and until > now else None,
        )

    def _lane(self, link: Link) -> Lane:
        known = self._domains[link.domain]
        return link.lane(known.breaker, link.member in known.proven)

    # --- what changes them --------------------------------------------------------------------

    def changes(
        self, transition: Transition, found: Iterable[Link], allowed: int
    ) -> dict[str, Breaker]:
        """The breakers that the transition changes, by domain. ``found``: the worker's links;
        ``allowed``: the number of failures in a row that its group allows.
        """
        outcome = _outcome(transition)
        if outcome is None:
            return {}
        made = {}
        for link in self._started.get(transition.after.name, found):
            before = self.of(link.domain)
            if outcome.succeeded:
                after = before.succeeded()
            else:
                at, error = transition.event.at, outcome.error
                after = before.failed(at, link.member, error, allowed)
            if after != before:
                made[link.domain] = after
        return made

    def happened(
        self,
        transition: Transition,
        found: Iterable[Link],
        changed: Mapping[str, Breaker],
        decided: Sequence[Decision],
    ) -> list[Decision]:
        """Note a committed transition of a worker, the ``changes`` it made, and the decisions that
        were committed with it. Returns the decisions that are still to be logged.
        """
        name, outcome = transition.after.name, _outcome(transition)
        found = self._started.get(name, tuple(found))
        self._count_starts(transition, found)
        if outcome is not None and not outcome.ordered:
            for link in found:
                proven = self._domain(link.domain).proven
                (proven.add if outcome.succeeded else proven.discard)(link.member)
        for domain, breaker in changed.items():
            self._replace(domain, breaker)
        for each in decided:
            if each.kind is DecisionKind.BREAKER and each.group is not None:
                self._domain(each.group).logged_until = each.numbers["open_until"]
        return list(self._unsaid(transition, found))

    def _unsaid(self, transition: Transition, found: Iterable[Link]) -> Iterator[Decision]:
        for link in found:
            known = self._domain(link.domain)
            if known.breaker.open_until != known.logged_until:
                known.logged_until = known.breaker.open_until
                at, name = transition.event.at, transition.after.name
                yield decision(link.domain, known.breaker, at, "a start succeeded", name)

    def close(self, domain: str) -> None:
        """Close the breaker of a domain, by an operator's order."""
        self._replace(domain, self.of(domain).succeeded())
        self._domain(domain).logged_until = None

    def _count_starts(self, transition: Transition, found: tuple[Link, ...]) -> None:
        name = transition.after.name
        if transition.before.state is transition.after.state:
            return
        if transition.after.state is State.SUBSTANTIATING:
            self._started[name] = found
            for link in found:
                known = self._domain(link.domain)
                if link.domain in self._open:
                    known.tried[self._lane(link)] += 1
                known.starting[name] = transition.event.at
        elif self._started.pop(name, None) is not None:
            for link in found:
                self._domain(link.domain).starting.pop(name, None)

    def _replace(self, domain: str, breaker: Breaker) -> None:
        self._domain(domain).replace_breaker(breaker)
        if breaker.open_until is None:
            self._open.discard(domain)
        else:
            self._open.add(domain)

    def _domain(self, name: str) -> _Domain:
        return self._domains.setdefault(name, _Domain())


@dataclass(frozen=True, slots=True)
class _Outcome:
    """How a start ended. ``ordered``: an operator resumed the worker, so that it is tried anew."""

    succeeded: bool
    error: str = ""
    ordered: bool = False


def _outcome(transition: Transition) -> _Outcome | None:
    """How the transition ended a start; None if it ended none, or one that tells nothing of others.

    An error of the worker's own options is that worker's alone.
    """
    before, after, event = transition.before, transition.after, transition.event
    if isinstance(event, events.ModeSet):
        return _Outcome(succeeded=True, ordered=True) if event.mode is Mode.ACTIVE else None
    examined = before.gate is Gate.ASKING and isinstance(event, events.Examined)
    if before.state is not State.SUBSTANTIATING and not (examined and not before.uses):
        return None
    if after.state is State.SUBSTANTIATED:
        # A worker that attaches may differ from its definition: the start has succeeded only once
        # the worker was examined.
        return _Outcome(succeeded=True) if after.gate is Gate.OPEN else None
    if after.quarantine_until in {None, before.quarantine_until}:
        return None
    if isinstance(event, events.CreateFailed) and event.refused:
        return None
    return _Outcome(succeeded=False, error=after.quarantine_reason or "")


def sentence(domain: str, breaker: Breaker, now: float) -> str:
    """That the starts of a domain are paused, until when and why, for people."""
    until = breaker.open_until
    what = f"after {breaker.failures} failures in a row, last: {breaker.error}"
    if until is None or breaker.state(now) == "half-open":
        return f"starts on {domain} are tried one at a time {what}"
    return f"starts on {domain} are paused until {clock_time(until)} {what}"


def decisions(
    transition: Transition, changed: Mapping[str, Breaker], known: Breakers
) -> Iterator[Decision]:
    """The decisions about breakers that open, or close, with a transition."""
    for domain, breaker in changed.items():
        if breaker.open_until != known.of(domain).open_until:
            ordered = isinstance(transition.event, events.ModeSet)
            by = transition.event.by if isinstance(transition.event, events.ModeSet) else ""
            closed = (
                f"{by} resumed worker {transition.after.name}" if ordered else "a start succeeded"
            )
            yield decision(domain, breaker, transition.event.at, closed, transition.after.name)


def decision(
    domain: str, breaker: Breaker, at: float, closed: str, worker: str | None = None
) -> Decision:
    """The decision that opens a breaker, with all that restores it, or that closes it; ``closed``
    says why.
    """
    if breaker.open_until is None:
        rule, text = "closed", f"{domain}: {closed}"
    else:
        rule = "opened"
        text = (
            f"{domain}: {breaker.failures} starts failed in a row; none for "
            f"{breaker.pause_s:g} s, then one: {breaker.error}"
        )
    return Decision(
        at=at,
        kind=DecisionKind.BREAKER,
        rule=rule,
        text=text,
        worker=worker,
        group=domain,
        numbers={
            "failures": breaker.failures,
            "allowed": breaker.allowed,
            "failed": sorted(breaker.failed_members)[:_MEMBERS_STORED],
            "open_until": breaker.open_until,
            "pause_s": breaker.pause_s,
            "error": breaker.error[:_ERROR_SIZE],
        },
    )
