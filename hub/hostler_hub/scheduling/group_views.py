"""Groups and what the hub makes of their numbers, as the REST API shows them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hostler_hub.runtime.clock import instant
from hostler_hub.scheduling.breaker_views import BreakerView, breaker_view
from hostler_hub.scheduling.breakers import Paused
from hostler_hub.scheduling.pools import Census, Pool
from hostler_hub.specs.group import GroupDefinition
from hostler_hub.specs.view import View


class NumbersNow(View):
    """What holds now, by which schedule, and until when at least."""

    min_idle: int = Field(description="How many instances are kept up and idle.")
    max_instances: int | None = Field(description="How many there may be; null for any number.")
    schedule: str | None = Field(description="The schedule that these numbers are from.")
    until: str | None = Field(description="Until when they hold at least.")


class Startable(View):
    """How many instances may be started now, and why no more."""

    starts: int | None = Field(description="How many; null for any number.")
    rule: str | None = Field(description="What limits them, in a fixed word.")
    why: str | None = Field(description="What limits them, in a sentence.")
    until: str | None = Field(description="When more may be started, where time decides.")


class GroupView(View):
    """A group: what is wanted of it, and how it is."""

    name: str = Field(description="The group's name.")
    definition: GroupDefinition | None = Field(
        description="What its owner defined; none where only workers name it."
    )
    now: NumbersNow = Field(
        description="The numbers that hold now, by which schedule, and until when at least."
    )
    workers: int = Field(description="How many workers are of it.")
    instances: int = Field(description="How many instances it has that are not proven gone.")
    starting: int = Field(description="How many of them are starting.")
    up: int = Field(description="How many of them are up.")
    idle: int = Field(description="How many of them are up and idle.")
    stopping: int = Field(description="How many of them are being stopped.")
    lost: int = Field(description="How many of them have lost their agent.")
    leases: int = Field(description="How many builds run on it.")
    starts_last_minute: int = Field(description="How many starts there were in the last minute.")
    startable: Startable = Field(
        description="How many may be started now, none for any number, and why no more."
    )
    breaker: BreakerView = Field(
        description="Whether workers are started at all after failures: the group's breaker or, if "
        "that is closed, an open one of its workers' hosts, images and so on."
    )
    held_since: str | None = Field(
        description="Since when lost workers are waited for, as most of the group was lost at once."
    )


class GroupList(View):
    """Every group by name."""

    items: list[GroupView] = Field(description="The groups.")


class DefineGroupResult(View):
    """What defining one group changed."""

    name: str = Field(description="The group's name.")
    changed: bool = Field(description="Whether it was not so already.")
    created: bool = Field(description="Whether it is new.")
    before: GroupDefinition | None = Field(description="Its definition before.")
    after: GroupDefinition = Field(description="Its definition now.")


class DefineGroupResults(View):
    """One result per definition, in the request's order."""

    results: list[DefineGroupResult] = Field(description="The results.")


class RemoveGroupResult(View):
    """What removing one group changed."""

    name: str = Field(description="The group's name.")
    changed: bool = Field(description="Whether it was there.")
    state: Literal["absent"] = Field(description="How it is now.")


class RemoveGroupResults(View):
    """One result per name, in the request's order."""

    results: list[RemoveGroupResult] = Field(description="The results.")


def group_view(pool: Pool, counted: Census, breaker: Paused, now: float) -> GroupView:
    """The view of one group: its definition, the counts of its workers, and what may be started."""
    held = pool.held(counted, now)
    return GroupView(
        name=pool.key.name,
        definition=pool.group,
        now=_numbers(pool, now),
        workers=counted.workers,
        instances=counted.instances,
        starting=counted.starting,
        up=counted.up,
        idle=len(counted.idle),
        stopping=counted.stopping,
        lost=counted.detached,
        leases=counted.leases,
        starts_last_minute=len(pool.starts),
        startable=_startable(pool, counted, now),
        breaker=breaker_view(breaker, now),
        held_since=instant(pool.held_since) if held else None,
    )


def _numbers(pool: Pool, now: float) -> NumbersNow:
    holds = pool.numbers(now)
    return NumbersNow(
        min_idle=holds.min_idle,
        max_instances=holds.max_instances,
        schedule=holds.schedule,
        until=instant(holds.until),
    )


def _startable(pool: Pool, counted: Census, now: float) -> Startable:
    budget = pool.budget(counted, now)
    return Startable(
        starts=budget.starts,
        rule=budget.rule or None,
        why=budget.why or None,
        until=instant(budget.until),
    )
