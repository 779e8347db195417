"""Compares the hub's ledger with a provider's list. Pure.

An instance that the list has and no worker does is an *orphan* when the ledger knows that it
ended, and *unknown* when the ledger never heard of it: the intent is committed before the create
(V1), so only a database restored from a backup, or a second hub of the same mark, explains that
(P18). One that a worker has and the list does not is *absent*: lists lag and lie (P6), so it is
gone only when two passes a minute apart agree, and not when many would go at once. What a driver
judges to be a *copy* (it only carries an instance's mark, see ``Owned``) is reported, and nothing
is ever done about it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from hostler_hub.drivers.contract import Owned

ABSENT_AGAIN_S = 60.0
HOLD_SHARE = 0.2
HOLD_LEAST = 3
UNKNOWN_HOLD_S = 3600.0


class DriftKind(StrEnum):
    """How an instance differs between the ledger and a provider's list."""

    ORPHAN = "orphan"
    UNKNOWN = "unknown"
    ABSENT = "absent"
    UNRECORDED = "unrecorded"  # a worker's own, but the answer of its create was lost (K3)
    SPARE = "spare"  # a stopped machine that no worker would take up any more
    COPY = "copy"  # somebody else's: it only carries an instance's mark


class Action(StrEnum):
    """What is to be done about a difference."""

    DESTROY = "destroy"
    GIVE_UP = "give_up"  # the worker is told that its instance is gone
    ADOPT = "adopt"
    WAIT = "wait"  # for a second look
    HOLD = "hold"  # for a person's confirmation
    REPORT = "report"  # it is not the hub's, and is not touched


@dataclass(frozen=True, slots=True)
class Expected:
    """The instance of a worker. ``settled``: no create and no destroy of it is in progress.
    ``unlisted``: its place did not answer, so that its absence from the list proves nothing.
    """

    worker: str
    instance: str
    epoch: int
    settled: bool
    attached: bool
    has_handle: bool
    unlisted: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """One difference, and what is to be done about it."""

    kind: DriftKind
    action: Action
    instance: str
    epoch: int
    worker: str
    reason: str
    owned: Owned | None = None

    @property
    def name(self) -> str:
        """The provider's name of the instance, or its id if there is none."""
        return (self.owned.name if self.owned else "") or self.instance


@dataclass(frozen=True, slots=True)
class Seen:
    """What is compared at one moment: a provider's list and what the hub expected in it."""

    at: float
    owned: Sequence[Owned]
    expected: Sequence[Expected]
    ended: Mapping[str, float | None]
    """When a listed instance that no worker has ended (Unix time), by id.

    None for one that the ledger does not show as ended; one that it does not contain is missing.
    """
    kept: Collection[str] = frozenset()
    """The ids of ended instances whose stopped machines are kept for their workers' next ones."""


def compare(
    seen: Seen, since: Mapping[str, float], *, confirmed: bool, hold: str | None = None
) -> list[Finding]:
    """The differences, in the order of the list, then of the workers.

    ``since``: when an instance was first found unknown or absent, by id. ``confirmed``: a person
    has confirmed that actions which are held may be carried out. ``hold``: why the hub is in hold;
    then nothing is done that ends anything.
    """
    confirmed = confirmed or hold is not None  # what a confirmation would do is what is told
    living = {each.instance for each in seen.expected}
    copies = [_copy(each) for each in seen.owned if each.copy]
    foreign = [each for each in seen.owned if not each.copy and each.instance not in living]
    findings = [_foreign(seen, each, since, confirmed) for each in foreign]
    found = [each for each in findings if each is not None]
    found = [*copies, *found, *_own(seen, since, confirmed)]
    return found if hold is None else [_held(finding, hold) for finding in found]


def _held(finding: Finding, hold: str) -> Finding:
    if finding.action not in {Action.DESTROY, Action.GIVE_UP}:
        return finding
    would = "destroyed" if finding.action is Action.DESTROY else "given up"
    reason = f"it would be {would}, since {finding.reason}; but {hold}"
    return replace(finding, action=Action.HOLD, reason=reason)


def _copy(owned: Owned) -> Finding:
    reason = (
        f"it only carries the mark of an instance of {owned.worker or 'a worker'}: {owned.copy}"
    )
    return _finding(DriftKind.COPY, Action.REPORT, owned, reason)


def _foreign(
    seen: Seen, owned: Owned, since: Mapping[str, float], confirmed: bool
) -> Finding | None:
    if owned.instance in seen.kept:
        return None
    if owned.instance not in seen.ended:
        return _unknown(seen, owned, since, confirmed)
    ended_at = seen.ended[owned.instance]
    if ended_at is None or ended_at >= seen.at:
        return None  # it ended while we looked
    if owned.spare:
        reason = "no worker keeps this stopped machine: it is gone, defined anew, or has another"
        return _finding(DriftKind.SPARE, Action.DESTROY, owned, reason)
    reason = "the ledger says that it ended"
    return _finding(DriftKind.ORPHAN, Action.DESTROY, owned, reason)


def _unknown(seen: Seen, owned: Owned, since: Mapping[str, float], confirmed: bool) -> Finding:
    waited_s = seen.at - since.get(owned.instance, seen.at)
    if confirmed or waited_s >= UNKNOWN_HOLD_S:
        return _finding(DriftKind.UNKNOWN, Action.DESTROY, owned, "the ledger never heard of it")
    reason = (
        "the ledger never heard of it: was the database restored, or is there a second hub? It is "
        f"destroyed after {UNKNOWN_HOLD_S - waited_s:.0f} s, or when confirmed"
    )
    return _finding(DriftKind.UNKNOWN, Action.HOLD, owned, reason)


def _finding(kind: DriftKind, action: Action, owned: Owned, reason: str) -> Finding:
    return Finding(kind, action, owned.instance, owned.epoch, owned.worker, reason, owned)


def _own(seen: Seen, since: Mapping[str, float], confirmed: bool) -> list[Finding]:
    listed = {each.instance: each for each in seen.owned if not each.copy}
    unrecorded = [
        _of_worker(DriftKind.UNRECORDED, Action.ADOPT, each, "its handle was lost", listed)
        for each in seen.expected
        if each.settled and not each.has_handle and each.instance in listed
    ]
    # That only a copy is listed does not prove that the original is gone: the driver may know it.
    return unrecorded + _absent(seen, {each.instance for each in seen.owned}, since, confirmed)


def _absent(
    seen: Seen, listed: Collection[str], since: Mapping[str, float], confirmed: bool
) -> list[Finding]:
    # An attached agent proves more than a list does.
    absent = [
        each
        for each in seen.expected
        if each.settled and not (each.attached or each.unlisted) and each.instance not in listed
    ]
    twice = {
        each.instance
        for each in absent
        if seen.at - since.get(each.instance, seen.at) >= ABSENT_AGAIN_S
    }
    many = len(twice) >= HOLD_LEAST and len(twice) > HOLD_SHARE * len(seen.expected)
    findings = []
    for each in absent:
        action, reason = Action.WAIT, "it is not listed; a second look decides"
        if each.instance in twice and many and not confirmed:
            action = Action.HOLD
            reason = (
                f"{len(twice)} of {len(seen.expected)} would be given up at once; it waits for "
                "a confirmation"
            )
        elif each.instance in twice:
            action, reason = Action.GIVE_UP, "it was not listed twice, a minute or more apart"
        findings.append(_of_worker(DriftKind.ABSENT, action, each, reason))
    return findings


def _of_worker(
    kind: DriftKind,
    action: Action,
    each: Expected,
    reason: str,
    listed: Mapping[str, Owned] | None = None,
) -> Finding:
    owned = (listed or {}).get(each.instance)
    return Finding(kind, action, each.instance, each.epoch, each.worker, reason, owned)


def still_waiting(
    findings: Iterable[Finding], since: Mapping[str, float], at: float
) -> dict[str, float]:
    """The ``since`` of the next pass: when what waits or is held was first found, by instance."""
    waits = {Action.WAIT, Action.HOLD}
    return {
        each.instance: since.get(each.instance, at) for each in findings if each.action in waits
    }
