"""The hub's decisions about workers: what was decided, by which rule, on which numbers. Pure.

The decisions in a transition are derived from it: its event names who or what asked for it, and the
worker before and after shows what changed. A decision *not* to do something (kind ``skip``) is
written by the part that considered it. Rules are fixed words, so that they can be counted; ``text``
is for people.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from hostler_hub.lifecycle import commands, events
from hostler_hub.lifecycle.model import Mode, State, Timer, Worker, why_retiring

_UP = {State.SUBSTANTIATING, State.SUBSTANTIATED}
_TEXT_SIZE = 1000
_DECIDED = (events.Wanted, events.Unwanted, events.Leased)
_WITH_CAUSE = (
    events.Wanted,
    events.Unwanted,
    events.Detached,
    events.Examined,
    events.Compromised,
    events.Refused,
    events.Released,
    events.PersonAsked,
    events.PersonLeft,
    events.Forgotten,
    events.HoldLifted,
)


class DecisionKind(StrEnum):
    """What a decision was about."""

    START = "start"  # an instance
    STOP = "stop"  # an instance
    MATCH = "match"  # a build and a worker
    SKIP = "skip"  # something that was possible, and is not done now
    QUARANTINE = "quarantine"  # a worker
    BREAKER = "breaker"  # opened or closed: whether a group's workers are started at all
    HOLD = "hold"  # put on or taken off: whether a group's lost workers are given up


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One decision about a worker, a build or a group.

    ``at``: Unix time. ``numbers``: the values that it was based on, by name.
    """

    at: float
    kind: DecisionKind
    rule: str
    text: str
    worker: str | None = None
    build: str | None = None
    group: str | None = None
    numbers: Mapping[str, Any] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """The decision as a row of ``store.tables.decisions``, without its id."""
        return {
            "at": self.at,
            "kind": self.kind.value,
            "rule": self.rule,
            "text": self.text[:_TEXT_SIZE],
            "worker": self.worker,
            "build": self.build,
            "group": self.group,
            "numbers": dict(self.numbers),
        }


@dataclass(frozen=True, slots=True)
class Transition:
    """One transition of a worker's life: the event, the life before and after it, its commands.

    ``group`` is the name of the worker's group, if any.
    """

    event: events.Event
    before: Worker
    after: Worker
    ordered: Sequence[commands.Command] = ()
    group: str | None = None

    def decision(self, kind: DecisionKind, rule: str, text: str, **numbers: Any) -> Decision:
        because = _because_of(self.event)
        known = dict(because.numbers) if because else {}
        return Decision(
            at=self.event.at,
            kind=kind,
            rule=rule,
            text=text,
            worker=self.after.name,
            build=because.build if because else None,
            group=self.group,
            numbers={**known, **numbers},
        )


def of_transition(transition: Transition) -> list[Decision]:
    """The decisions in one transition: a match, a start, a stop, a quarantine, in this order."""
    before, after, event = transition.before, transition.after, transition.event
    made = []
    if isinstance(event, events.Leased) and len(after.leases) > len(before.leases):
        rule = event.because.rule if event.because else "order"
        text = f"leased to build {event.because.build}" if event.because else "leased"
        made.append(transition.decision(DecisionKind.MATCH, rule, text))
    if before.state is State.LATENT and after.state is State.SUBSTANTIATING:
        rule = _rule_of(event, "order")
        made.append(
            transition.decision(DecisionKind.START, rule, cause_of(event), epoch=after.epoch)
        )
    if before.state in _UP and after.state is State.INSUBSTANTIATING:
        made.append(_stop(transition))
    if after.quarantine_until not in {None, before.quarantine_until}:
        text = after.quarantine_reason or ""
        rule = _stop_rule(transition)
        made.append(
            transition.decision(DecisionKind.QUARANTINE, rule, text, delay_s=after.backoff_s)
        )
    return made


def cause_of(event: events.Event) -> str:
    """Why an event happened, in words; the event's own name where nobody gave a reason."""
    return _words_of(event) or type(event).__name__


def _words_of(event: events.Event) -> str | None:
    if isinstance(event, _WITH_CAUSE):
        return event.cause
    if isinstance(event, events.CreateFailed | events.DestroyFailed):
        return event.error
    if isinstance(event, events.ModeSet | events.PersonRenewed):
        return event.reason or event.by
    if isinstance(event, events.Inspected):
        return event.evidence
    if isinstance(event, events.Removed):
        return event.by
    return str(event.timer) if isinstance(event, events.TimerFired) else None


def _stop(transition: Transition) -> Decision:
    policy = transition.before.policy
    numbers: dict[str, Any] = {
        "up_s": round(transition.event.at - transition.before.state_since, 3)
    }
    rule = _stop_rule(transition)
    if rule == "idle":
        numbers["build_wait_timeout_s"] = policy.build_wait_timeout_s
    if rule == "not_attached":
        numbers["missing_timeout_s"] = policy.missing_timeout_s
    # Not the lease whose release has led to this: its build has ended.
    lost = [each for each in transition.ordered if isinstance(each, commands.LoseLeases)]
    if lost:
        numbers["leases_lost"] = sum(len(each.leases) for each in lost)
    return transition.decision(DecisionKind.STOP, rule, _stop_text(transition), **numbers)


def _stop_text(transition: Transition) -> str:
    for command in transition.ordered:
        if isinstance(command, commands.SendAway):
            return command.reason
        if isinstance(command, commands.Destroy) and command.failure:
            return command.failure
    return cause_of(transition.event)


# The rules by which instances are stopped, by the timer that fired or by the event's type.
TIMERS = {
    Timer.IDLE: "idle",
    Timer.ATTACH: "not_attached",
    Timer.RECONNECT: "not_reconnected",
    Timer.MISSING: "not_reconnected",
    Timer.UPTIME: "worn_out",
    Timer.PERSON: "lease_ended",
}
EVENTS: dict[type[events.Event], str] = {
    events.CreateFailed: "create_failed",
    events.Inspected: "gone",
    events.Compromised: "compromised",
    events.Examined: "not_as_expected",
    events.Removed: "removed",
    events.Redefined: "redefined",
    events.HubStopping: "hub_stops",
    events.Unwanted: "order",
    events.PersonLeft: "lease_ended",
    # These four may end an instance that was kept only for its leases: see _why_over(). Else:
    events.Attached: "lost",
    events.Detached: "agent_left",
    events.Recovered: "lost",
    events.HoldLifted: "worn_out",
}
_WAS_KEPT = (events.Attached, events.Detached, events.Recovered, events.HoldLifted)


def _stop_rule(transition: Transition) -> str:
    event = transition.event
    if isinstance(event, events.TimerFired):
        return TIMERS.get(event.timer, str(event.timer))
    if isinstance(event, events.ModeSet):
        return f"mode_{event.mode}"
    if isinstance(event, events.Released):
        return _release_rule(transition, event)
    kept = _why_over(transition.before) if isinstance(event, _WAS_KEPT) else None
    return kept or _rule_of(event, EVENTS.get(type(event), type(event).__name__.lower()))


def _release_rule(transition: Transition, event: events.Released) -> str:
    if not event.clean:
        return "not_clean"
    waits = transition.before.policy.build_wait_timeout_s != 0
    return _why_over(transition.before) or ("worn_out" if waits else "build_wait_timeout")


def _why_over(before: Worker) -> str | None:
    """The rule by which the instance was to stop with its last lease, or None."""
    if before.tainted:
        return "not_clean"
    if before.mode is Mode.DRAINING:
        return "drained"
    return "worn_out" if why_retiring(before) is not None else None


def _because_of(event: events.Event) -> events.Because | None:
    return event.because if isinstance(event, _DECIDED) else None


def _rule_of(event: events.Event, default: str) -> str:
    because = _because_of(event)
    return default if because is None else str(because.rule)
