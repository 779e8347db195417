"""What reconciling found and did."""

from typing import Literal

from hostler_hub.web.api.schemas.base import Shape


class Evidence(Shape):
    """What a driver could say of an instance before it was destroyed; texts by name."""

    at: str
    instance: str
    why: str
    texts: dict[str, str]


class EvidenceList(Shape):
    """Evidence of a worker's failed instances, newest first."""

    items: list[Evidence]


class Finding(Shape):
    """An instance in which a provider's list and the ledger differ, and what came of it."""

    driver: str
    kind: Literal["orphan", "unknown", "absent", "unrecorded", "spare"]
    action: Literal["destroy", "give_up", "adopt", "wait", "hold"]
    instance: str
    epoch: int
    worker: str | None
    name: str
    created_at: str | None
    age_s: float | None
    reason: str
    done: bool
    error: str | None


class Checked(Shape):
    """How many instances a driver listed, how many the hub expected, and stopped machines kept."""

    driver: str
    listed: int
    expected: int
    spares: int


class Unanswered(Shape):
    """A driver that could not list its instances, and why."""

    driver: str
    reason: str


class Reconciliation(Shape):
    """What one pass found and did."""

    at: str
    checked: list[Checked]
    unanswered: list[Unanswered]
    findings: list[Finding]


class Forgotten(Shape):
    """Whether a worker's instance was forgotten."""

    name: str
    changed: bool


class ForgetResults(Shape):
    """One result per worker."""

    results: list[Forgotten]
