"""Which of a group's numbers hold at an instant: its own, or those of a window in its schedules.

Pure. A window begins at each instant of its cron expression, in its time zone, and lasts for so
many seconds, whatever clocks are set meanwhile. Where windows overlap, the one listed last wins.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Protocol
from zoneinfo import ZoneInfo

from cronsim import CronSim

EPOCH = datetime(2000, 1, 1, tzinfo=UTC)

# More than any zone has ever set its clocks back by.
_BACK_S = 3 * 3600.0


class Window(Protocol):
    """The fields of ``specs.group.Schedule`` that are used here."""

    @property
    def name(self) -> str | None: ...
    @property
    def cron(self) -> str: ...
    @property
    def time_zone(self) -> str: ...
    @property
    def duration_s(self) -> float: ...
    @property
    def min_idle(self) -> int | None: ...
    @property
    def max_instances(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class InForce:
    """The numbers that hold, the schedule that sets them (None: the group's own), and until when at
    least.
    """

    min_idle: int = 0
    max_instances: int | None = None
    schedule: str | None = None
    until: float | None = None


def in_force(
    min_idle: int, max_instances: int | None, schedules: Sequence[Window], now: float
) -> InForce:
    """The numbers that hold at ``now`` (seconds since the epoch)."""
    changes: list[float] = []
    by = None
    for window in schedules:
        begins, ends = _around(window, now)
        changes.extend(each for each in (begins, ends) if each is not None)
        if ends is None:
            continue
        by = window.name or window.cron
        min_idle = min_idle if window.min_idle is None else window.min_idle
        max_instances = max_instances if window.max_instances is None else window.max_instances
    return InForce(min_idle, max_instances, by, min(changes, default=None))


def _around(window: Window, now: float) -> tuple[float | None, float | None]:
    """When the window begins next, and when it ends if it is open now (None: it is closed)."""
    begun, coming = _begins_around(window, now)
    ends = None if begun is None else begun + window.duration_s
    return coming, None if ends is None or ends <= now else ends


def _begins_around(window: Window, now: float) -> tuple[float | None, float | None]:
    """The last instant of the cron expression that is not after `now`, and the first one after it.

    CronSim knows the hour that comes twice when it goes forward, not when it goes backward or
    begins in that hour's second pass: there it takes the first pass for still to come. So the last
    instant that it finds backward is only where to begin forward, some hours earlier.
    """
    at = datetime.fromtimestamp(math.floor(now), ZoneInfo(window.time_zone))
    # Backward it finds what is before a time, and an instant that is just now has come.
    found = next(CronSim(window.cron, at + timedelta(seconds=1), reverse=True), at)
    begun: float | None = None
    for each in CronSim(window.cron, _hours_before(min(found.timestamp(), now), at.tzinfo)):
        instant = each.timestamp()
        if instant > now:
            return begun, instant
        begun = instant
    return begun, None


def _hours_before(instant: float, zone: tzinfo | None) -> datetime:
    """A time some hours earlier that the clocks of the zone show only once."""
    at = datetime.fromtimestamp(instant, zone)
    while True:
        at = datetime.fromtimestamp(at.timestamp() - _BACK_S, zone)
        if at.replace(fold=0).utcoffset() == at.replace(fold=1).utcoffset():
            return at
