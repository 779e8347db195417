"""What one pass of the reconciler found and did."""

from __future__ import annotations

from dataclasses import dataclass, field

from hostler_hub.workers.reconcile.diff import Finding


@dataclass(frozen=True, slots=True)
class FindingOutcome:
    """A finding and what came of it; ``error`` when it could not be done."""

    driver: str
    finding: Finding
    done: bool = False
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Checked:
    """How many a driver listed, how many of workers were expected, and the spares beside them."""

    listed: int
    expected: int
    spares: int = 0


@dataclass(slots=True)
class Report:
    """What one pass found: what was looked at, by driver, and the differences."""

    at: float
    outcomes: list[FindingOutcome] = field(default_factory=list)
    checked: dict[str, Checked] = field(default_factory=dict)
    unanswered: dict[str, str] = field(default_factory=dict)
