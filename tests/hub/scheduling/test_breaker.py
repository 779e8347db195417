"""When failed starts open a breaker, for how long, what it lets through, and what closes it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler_hub.scheduling.breaker import PAUSES, Breaker, Lane

NOW = 1_000_000.0


def failing(times: int, *names: str, allowed: int = 3) -> Breaker:
    breaker = Breaker()
    for number in range(times):
        breaker = breaker.failed(NOW, names[number % len(names)], "no quota", allowed)
    return breaker


def test_P5_it_opens_after_failures_of_more_than_one_worker() -> None:
    assert failing(2, "a", "b").state(NOW) == "closed"
    opened = failing(3, "a", "b")
    assert (opened.state(NOW), opened.starts(NOW, Lane.PROBE, 0)) == ("open", 0)
    assert failing(50, "a").state(NOW) == "closed"  # a single worker rests by itself


def test_P9_half_open_lets_one_through_and_a_failure_doubles_the_pause() -> None:
    breaker = failing(3, "a", "b")
    assert breaker.open_until is not None
    later = breaker.open_until
    assert [breaker.starts(later, Lane.PROBE, there) for there in (0, 1, 2)] == [1, 0, 0]
    assert breaker.state(later) == "half-open"
    again = breaker.failed(later, "a", "no quota", 3)
    assert again.pause_s == 2 * breaker.pause_s
    assert again.open_until == later + again.pause_s
    assert again.succeeded().starts(later, Lane.PROBE, 5) is None


def test_what_was_under_way_when_it_opened_does_not_double_the_pause() -> None:
    breaker = failing(3, "a", "b")
    late = breaker.failed(NOW + 1, "c", "no quota", 3)
    assert (late.open_until, late.pause_s) == (breaker.open_until, breaker.pause_s)


@given(outcomes=st.lists(st.booleans(), max_size=60))
def test_P9_the_number_of_starts_in_an_outage_is_bounded(outcomes: list[bool]) -> None:
    breaker, now = Breaker(), NOW
    for works in outcomes:
        if breaker.starts(now, Lane.PROBE, 0) == 0:
            assert breaker.open_until is not None
            assert 0 < breaker.open_until - now <= PAUSES.longest_s
            now = breaker.open_until
        name = f"w{len(outcomes)}{now}"
        breaker = breaker.succeeded() if works else breaker.failed(now, name, "", 3)
        assert works == (breaker == Breaker())


@pytest.mark.parametrize(
    ("times", "names", "state"),
    [
        (2, ("a", "b"), "closed"),
        (3, ("a", "b"), "open"),
        (3, ("a",), "closed"),
        (9, ("a", "a", "a", "a", "a", "a", "a", "a", "b"), "open"),
        (1, ("a", "b"), "closed"),
    ],
    ids=["too few", "enough", "of one worker", "the ninth of another", "one"],
)
def test_how_many_failures_of_how_many_workers_open_it(
    times: int, names: tuple[str, ...], state: str
) -> None:
    assert failing(times, *names).state(NOW) == state


def test_its_pause_doubles_to_an_hour() -> None:
    breaker, pauses = failing(3, "a", "b"), []
    for _ in range(9):
        pauses.append(breaker.pause_s)
        assert breaker.open_until is not None
        breaker = breaker.failed(breaker.open_until, "a", "no quota", 3)
    assert pauses == [PAUSES.first_s * 2**n for n in range(7)] + [PAUSES.longest_s] * 2


def test_a_success_closes_it_and_the_next_pause_is_the_first_again() -> None:
    breaker = failing(3, "a", "b").succeeded()
    assert breaker == Breaker()
    for name in ("a", "b", "c"):
        breaker = breaker.failed(NOW, name, "no quota", 3)
    assert breaker.pause_s == PAUSES.first_s


def test_it_tells_the_last_error_and_counts_also_while_it_is_open() -> None:
    breaker = failing(3, "a", "b").failed(NOW + 1, "c", "no image", 3)
    assert (breaker.error, breaker.failures) == ("no image", 4)


@pytest.mark.parametrize(
    ("now", "state"),
    [
        (NOW, "open"),
        (NOW + PAUSES.first_s - 1, "open"),
        (NOW + PAUSES.first_s, "half-open"),
        (NOW + 86400, "half-open"),
        (NOW - 86400, "half-open"),
    ],
    ids=["at once", "a second early", "when it is over", "clock set forward", "clock set back"],
)
def test_A9_its_pause_is_not_prolonged_by_the_clock(now: float, state: str) -> None:
    assert failing(3, "a", "b").state(now) == state


@pytest.mark.parametrize("lane", [Lane.PROVEN, Lane.UNTRIED])
def test_V19_those_that_did_not_fail_are_started_also_during_the_pause(lane: Lane) -> None:
    breaker = failing(3, "a", "b", allowed=3)
    assert [breaker.starts(NOW, lane, tried) for tried in range(5)] == [3, 2, 1, 0, 0]
    assert failing(2, "a", "b").starts(NOW, lane, 9) is None


def test_a_probe_holds_others_up_for_one_more_pause_only() -> None:
    breaker = failing(3, "a", "b")
    ended_at = NOW + PAUSES.first_s
    assert breaker.probes_since(ended_at) == ended_at
    assert breaker.probes_since(ended_at + 5) == ended_at
    much_later = ended_at + 10 * PAUSES.first_s
    assert breaker.probes_since(much_later) == much_later - PAUSES.first_s


def test_A9_what_starts_after_the_clock_was_set_back_counts_as_a_probe() -> None:
    breaker, long_before = failing(3, "a", "b"), NOW - 86400
    assert breaker.probes_since(long_before) <= long_before


def test_V15_it_remembers_a_bounded_number_of_members() -> None:
    names = [f"w{number}" for number in range(1500)]
    assert len(failing(1500, *names).failed_members) == 1000
