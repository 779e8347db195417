"""Groups and what the hub makes of their numbers."""

from typing import Literal

from hostler_hub.web.api.schemas.base import Shape


class ScheduleView(Shape):
    """A window in which other numbers hold."""

    name: str | None
    cron: str
    time_zone: str
    duration_s: float
    min_idle: int | None
    max_instances: int | None


class GroupDefinitionView(Shape):
    """A group's definition as stored."""

    name: str
    min_idle: int
    max_instances: int | None
    schedules: list[ScheduleView]
    max_starting: int | None
    max_starts_per_minute: int | None
    failures_allowed: int
    description: str | None


class NumbersNow(Shape):
    """What holds now, by which schedule, and until when at least."""

    min_idle: int
    max_instances: int | None
    schedule: str | None
    until: str | None


class Startable(Shape):
    """How many may be started now (null: any number), and why no more."""

    starts: int | None
    rule: str | None
    why: str | None
    until: str | None


class BreakerView(Shape):
    """Whether workers are started at all after failures."""

    state: Literal["closed", "open", "half-open"]
    failures: int
    until: str | None
    error: str | None


class GroupView(Shape):
    """A group: what is wanted of it (null where only workers name it), and how it is."""

    name: str
    definition: GroupDefinitionView | None
    now: NumbersNow
    workers: int
    instances: int
    starting: int
    up: int
    idle: int
    stopping: int
    lost: int
    leases: int
    starts_last_minute: int
    startable: Startable
    breaker: BreakerView
    held_since: str | None


class GroupList(Shape):
    """Every group by name."""

    items: list[GroupView]


class DefineGroupResult(Shape):
    """What defining one group changed."""

    name: str
    changed: bool
    created: bool
    before: GroupDefinitionView | None
    after: GroupDefinitionView


class DefineGroupResults(Shape):
    """One result per definition, in the request's order."""

    results: list[DefineGroupResult]


class RemoveGroupResult(Shape):
    """What removing one group changed."""

    name: str
    changed: bool
    state: Literal["absent"]


class RemoveGroupResults(Shape):
    """One result per name, in the request's order."""

    results: list[RemoveGroupResult]
