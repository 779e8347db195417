"""Which of a group's numbers hold at an instant: its own, or those of a window in its schedules.

Pure. A window begins at each instant of its cron expression, in its time zone, and lasts for so
many seconds, whatever clocks are set meanwhile. Where windows overlap, the one listed last wins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol
from zoneinfo import ZoneInfo

from cronsim import CronSim

EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


class Window(Protocol):
    """What is asked of ``group_spec.Schedule``."""

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
    """The numbers that hold, by which schedule (None: the group's own), and until when at least."""

    min_idle: int = 0
    max_instances: int | None = None
    schedule: str | None = None
    until: float | None = None


def in_force(
    min_idle: int, max_instances: int | None, schedules: Sequence[Window], now: float
) -> InForce:
    """What holds at ``now`` (seconds since the epoch)."""
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
    """When it begins next, and when it ends if it is open now."""
    at = datetime.fromtimestamp(now, ZoneInfo(window.time_zone))
    last = next(CronSim(window.cron, at + timedelta(seconds=1), reverse=True), None)
    coming = next(CronSim(window.cron, at), None)
    ends = None if last is None else last.timestamp() + window.duration_s
    return (
        None if coming is None else coming.timestamp(),
        None if ends is None or ends <= now else ends,
    )
