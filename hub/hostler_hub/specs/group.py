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

    name: Title | None = None
    cron: Cron
    time_zone: TimeZone = "UTC"
    duration_s: Annotated[Number, Field(gt=0, le=MONTH_S)]
    min_idle: Count | None = None
    max_instances: Count | None = None

    @_model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.min_idle is None and self.max_instances is None:
            raise refuse("empty_schedule", "gives neither min_idle nor max_instances")
        return self


class GroupDefinition(_Spec):
    """A group as its owner defines it.

    `min_idle` instances are kept up and idle. `max_instances` (null: any number) bounds all
    instances that are not proven gone. `max_starting` at once and `max_starts_per_minute` throttle
    starts. After `failures_allowed` failed starts in a row, of more than one worker, starts are
    suspended for a while.
    """

    name: WorkerName
    min_idle: Count = 0
    max_instances: Count | None = None
    schedules: Annotated[tuple[Schedule, ...], Field(max_length=64)] = ()
    max_starting: PositiveCount | None = None
    max_starts_per_minute: PositiveCount | None = None
    failures_allowed: PositiveCount = 5
    description: Text | None = None

    @_model_validator(mode="after")
    def _fits(self) -> Self:
        if self.max_instances is not None and self.min_idle > self.max_instances:
            raise refuse("min_idle", "min_idle is more than max_instances")
        return self

    def public(self) -> dict[str, Any]:
        """The definition as JSON-able data."""
        return self.model_dump(mode="json")
