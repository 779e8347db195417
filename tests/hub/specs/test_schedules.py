"""Which numbers of a group hold when; cron and time zones by the wall, durations by the second."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from hostler_hub.specs.group import GroupDefinition, Schedule
from hostler_hub.specs.schedules import in_force

BERLIN = "Europe/Berlin"
NEW_YORK = "America/New_York"
LORD_HOWE = "Australia/Lord_Howe"
OFFICE = Schedule(name="office", cron="0 8 * * 1-5", time_zone=BERLIN, duration_s=36000, min_idle=3)
NIGHT = Schedule(cron="0 22 * * *", time_zone=BERLIN, duration_s=8 * 3600, max_instances=2)


def at(text: str, zone: str = BERLIN) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


@pytest.mark.parametrize(
    ("when", "min_idle", "until"),
    [
        ("2026-03-02T07:59:59", 1, "2026-03-02T08:00"),  # a Monday
        ("2026-03-02T08:00:00", 3, "2026-03-02T18:00"),
        ("2026-03-02T17:59:59", 3, "2026-03-02T18:00"),
        ("2026-03-02T18:00:00", 1, "2026-03-03T08:00"),
        ("2026-03-06T18:00:00", 1, "2026-03-09T08:00"),  # over the week-end
    ],
)
def test_a_window_begins_and_ends_to_the_second(when: str, min_idle: int, until: str) -> None:
    holds = in_force(1, None, [OFFICE], at(when))
    assert (holds.min_idle, holds.until) == (min_idle, at(until))
    assert holds.schedule == ("office" if min_idle == 3 else None)


def test_time_zones_and_summer_time_are_those_of_the_window() -> None:
    assert in_force(1, None, [OFFICE], at("2026-07-01T06:00", "UTC")).min_idle == 3
    assert in_force(1, None, [OFFICE], at("2026-01-07T06:30", "UTC")).min_idle == 1
    # The night in which clocks go forward: the window lasts its seconds, till 7 by the wall.
    assert in_force(0, 9, [NIGHT], at("2026-03-29T06:59")).max_instances == 2
    assert in_force(0, 9, [NIGHT], at("2026-03-29T07:00")).max_instances == 9


def test_the_window_listed_last_wins_where_they_overlap() -> None:
    more = Schedule(name="rush", cron="0 9 * * *", time_zone=BERLIN, duration_s=60, min_idle=9)
    holds = in_force(1, 5, [OFFICE, more, NIGHT], at("2026-03-02T09:00:30"))
    assert (holds.min_idle, holds.max_instances, holds.schedule) == (9, 5, "rush")
    assert holds.until == at("2026-03-02T09:01")


def test_without_schedules_nothing_ever_changes() -> None:
    holds = in_force(2, 7, [], 0.0)
    assert (holds.min_idle, holds.max_instances, holds.schedule, holds.until) == (2, 7, None, None)


@given(
    offset_s=st.integers(0, 14 * 24 * 3600),
    minute=st.integers(0, 59),
    duration_s=st.integers(1, 3600),
)
def test_a_window_is_open_exactly_so_long_after_each_of_its_instants(
    offset_s: int, minute: int, duration_s: int
) -> None:
    now = datetime(2026, 3, 20, tzinfo=ZoneInfo("UTC")) + timedelta(seconds=offset_s)
    window = Schedule(cron=f"{minute} * * * *", duration_s=duration_s, min_idle=1)
    since_s = (now.minute * 60 + now.second - minute * 60) % 3600
    holds = in_force(0, None, [window], now.timestamp())
    assert holds.min_idle == (1 if since_s < duration_s else 0)
    assert holds.until is not None
    assert now.timestamp() < holds.until <= now.timestamp() + 3600


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"cron": "0 8 * *"}, "cron"),
        ({"cron": "0 0 8 * * *"}, "cron"),
        ({"cron": "61 8 * * *"}, "cron"),
        ({"time_zone": "Europe/Atlantis"}, "time_zone"),
        ({"time_zone": "../../etc/passwd"}, "time_zone"),
        ({"duration_s": 0}, "duration_s"),
        ({"min_idle": None}, ""),
        ({"colour": "red"}, "colour"),
    ],
)
def test_what_is_no_schedule_is_refused_where_it_is_wrong(
    change: dict[str, object], place: str
) -> None:
    schedule = {"cron": "0 8 * * *", "duration_s": 60, "min_idle": 1, **change}
    with pytest.raises(ValidationError) as error:
        GroupDefinition.model_validate({"name": "g", "schedules": [schedule]})
    where = error.value.errors()[0]["loc"]
    assert where == ("schedules", 0, place) if place else ("schedules", 0)


def utc(text: str) -> float:
    return datetime.fromisoformat(text + "+00:00").timestamp()


# Clocks go back: Berlin at 01:00Z (03:00 becomes 02:00), New York at 06:00Z (02:00 becomes 01:00),
# Lord Howe Island by half an hour at 15:00Z. They go forward: 2027-03-14 at 07:00Z in New York.
@pytest.mark.parametrize(
    ("zone", "cron", "now", "begun", "coming"),
    [
        (BERLIN, "30 2 * * *", "2026-10-25T00:20", "2026-10-24T00:30", "2026-10-25T00:30"),
        (BERLIN, "30 2 * * *", "2026-10-25T00:50", "2026-10-25T00:30", "2026-10-26T01:30"),
        (BERLIN, "30 2 * * *", "2026-10-25T01:05", "2026-10-25T00:30", "2026-10-26T01:30"),
        (BERLIN, "30 2 * * *", "2026-10-25T01:50", "2026-10-25T00:30", "2026-10-26T01:30"),
        (BERLIN, "30 2 * * *", "2026-10-25T04:30", "2026-10-25T00:30", "2026-10-26T01:30"),
        (BERLIN, "*/30 2 * * *", "2026-10-25T01:10", "2026-10-25T01:00", "2026-10-25T01:30"),
        (BERLIN, "30 * * * *", "2026-10-25T01:10", "2026-10-25T00:30", "2026-10-25T01:30"),
        (
            NEW_YORK,
            "45 1 * * *",
            "2026-11-01T06:10",
            "2026-11-01T05:45",
            "2026-11-02T06:45",
        ),
        (
            NEW_YORK,
            "30 2 * * *",
            "2027-03-14T07:10",
            "2027-03-14T07:00",
            "2027-03-15T06:30",
        ),
        (
            LORD_HOWE,
            "45 1 * * *",
            "2026-04-04T15:05",
            "2026-04-04T14:45",
            "2026-04-05T15:15",
        ),
        ("Asia/Kolkata", "0 0 1 1 *", "2026-01-09T00:00", "2025-12-31T18:30", "2026-12-31T18:30"),
    ],
)
def test_a_window_begins_once_in_the_hour_that_comes_twice(
    zone: str, cron: str, now: str, begun: str, coming: str
) -> None:
    """As Debian's cron runs a job of a fixed hour: once; one of every hour runs in both passes."""
    since_s = utc(now) - utc(begun)
    still_open = Schedule(cron=cron, time_zone=zone, duration_s=since_s + 1, min_idle=1)
    holds = in_force(0, None, [still_open], utc(now))
    assert (holds.min_idle, holds.until) == (1, utc(now) + 1)
    over = Schedule(cron=cron, time_zone=zone, duration_s=since_s, min_idle=1)
    holds = in_force(0, None, [over], utc(now))
    assert (holds.min_idle, holds.until) == (0, utc(coming))


@given(
    zone=st.sampled_from([BERLIN, NEW_YORK, LORD_HOWE, "Asia/Kolkata"]),
    cron=st.sampled_from(["30 2 * * *", "45 1 * * *", "*/20 1,2 * * *", "15 * * * *", "0 3 * * 0"]),
    change=st.sampled_from(["2026-04-04T15:00", "2026-10-25T01:00", "2026-11-01T06:00"]),
    offset_s=st.integers(-20_000, 20_000),
    duration_s=st.integers(1, 90_000),
)
def test_the_next_change_is_never_in_the_past(
    zone: str, cron: str, change: str, offset_s: int, duration_s: int
) -> None:
    """The hub sets a timer for it: one that is always due would keep a processor busy."""
    now = utc(change) + offset_s
    window = Schedule(cron=cron, time_zone=zone, duration_s=duration_s, min_idle=1)
    holds = in_force(0, None, [window], now)
    assert holds.until is not None
    assert holds.until > now
    just_before = in_force(0, None, [window], holds.until - 0.001)
    assert just_before.min_idle == holds.min_idle  # nothing changes until then
