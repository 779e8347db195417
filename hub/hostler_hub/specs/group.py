"""A group as its owner defines it: limits that its workers have in common.

A worker belongs to the group that its own definition names. The group need not be defined; then it
has no limits.
"""

from __future__ import annotations

from typing import Annotated, Any, Self
from zoneinfo import available_timezones

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, BaseModel, Field, StrictInt, StrictStr, StringConstraints
from pydantic import model_validator as _model_validator

from hostler_hub.specs.fields import MONTH_S, STRICT, Number, Text, Title, WorkerName, refuse
from hostler_hub.specs.schedules import EPOCH

_MOST = 10_000


def _cron(text: str) -> str:
    try:
        CronSim(text, EPOCH)
    except CronSimError as error:
        raise refuse("cron", f"is no cron expression of five fields: {error}") from None
    if len(text.split()) != 5:
        raise refuse("cron", "is no cron expression of five fields")
    return text


def _time_zone(name: str) -> str:
    if name not in available_timezones():
        raise refuse("time_zone", "is no time zone, such as Europe/Berlin or UTC")
    return name


Cron = Annotated[StrictStr, StringConstraints(max_length=256), AfterValidator(_cron)]
TimeZone = Annotated[StrictStr, StringConstraints(max_length=64), AfterValidator(_time_zone)]
Count = Annotated[StrictInt, Field(ge=0, le=_MOST)]
PositiveCount = Annotated[StrictInt, Field(ge=1, le=_MOST)]


class _Spec(BaseModel):
    model_config = STRICT


class Schedule(_Spec):
    """A window in which other numbers hold: from each instant of `cron` on, for `duration_s`."""

    name: Title | None = Field(None, description="What it is called.")
    cron: Cron = Field(description="When it begins: a cron expression of five fields.")
    time_zone: TimeZone = Field("UTC", description="The time zone of `cron`.")
    duration_s: Annotated[Number, Field(gt=0, le=MONTH_S)] = Field(
        description="For how many seconds it lasts."
    )
    min_idle: Count | None = Field(None, description="How many instances are kept idle in it.")
    max_instances: Count | None = Field(None, description="How many there may be in it.")

    @_model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.min_idle is None and self.max_instances is None:
            raise refuse("empty_schedule", "gives neither min_idle nor max_instances")
        return self


class GroupDefinition(_Spec):
    """A group as its owner defines it."""

    name: WorkerName = Field(description="The group's name.")
    min_idle: Count = Field(0, description="How many instances are kept up and idle.")
    max_instances: Count | None = Field(
        None, description="How many there may be that are not proven gone; null for any number."
    )
    schedules: Annotated[tuple[Schedule, ...], Field(max_length=64)] = Field(
        (), description="Windows in which other numbers hold."
    )
    max_starting: PositiveCount | None = Field(
        None, description="How many may be starting at once; null for any number."
    )
    max_starts_per_minute: PositiveCount | None = Field(
        None, description="How many may be started within a minute; null for any number."
    )
    failures_allowed: PositiveCount = Field(
        5,
        description="After so many failed starts in a row, of more than one worker, none is "
        "started for a while.",
    )
    description: Text | None = Field(None, description="What it is for, for people.")

    @_model_validator(mode="after")
    def _fits(self) -> Self:
        if self.max_instances is not None and self.min_idle > self.max_instances:
            raise refuse("min_idle", "min_idle is more than max_instances")
        return self

    def public(self) -> dict[str, Any]:
        """The definition as JSON-able data."""
        return self.model_dump(mode="json")
