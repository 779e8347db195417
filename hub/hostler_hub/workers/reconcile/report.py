"""The report of one pass of the reconciler: what it found and did."""

from __future__ import annotations

from dataclasses import dataclass, field

from hostler_hub.workers.reconcile.diff import Finding


@dataclass(frozen=True, slots=True)
class FindingOutcome:
    """A finding, whether its action was done, and the error if it failed."""

    driver: str
    finding: Finding
    done: bool = False
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Checked:
    """How many instances a driver listed, how many the hub expected, and how many spares."""

    listed: int
    expected: int
    spares: int = 0


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A place that did not answer, and why; no name means all places of the driver."""

    driver: str
    place: str
    reason: str


@dataclass(slots=True)
class Report:
    """What one pass, begun ``at`` (Unix time), found.

    ``hold``: why the hub ended nothing at all, if it was in hold. ``checked``: counts of each
    driver of which a place answered. ``unanswered``: the places that did not.
    """

    at: float
    hold: str | None = None
    outcomes: list[FindingOutcome] = field(default_factory=list)
    checked: dict[str, Checked] = field(default_factory=dict)
    unanswered: list[Unanswered] = field(default_factory=list)
