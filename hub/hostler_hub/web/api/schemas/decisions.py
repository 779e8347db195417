"""The decision log."""

from typing import Any, Literal

from hostler_hub.web.api.schemas.base import Shape

DecisionKind = Literal["start", "stop", "match", "skip", "quarantine", "breaker", "hold"]


class DecisionView(Shape):
    """What was decided of a worker, a build or a group: by which rule, on which numbers."""

    id: int
    at: str
    kind: DecisionKind
    rule: str
    text: str
    worker: str | None
    build: str | None
    group: str | None
    numbers: dict[str, Any]


class DecisionPage(Shape):
    """Decisions, newest first; `next` goes into `after`."""

    items: list[DecisionView]
    next: int | None
