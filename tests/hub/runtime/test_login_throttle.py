"""Who is slowed down for failed logins: the client that fails, with the names that it tries."""

from __future__ import annotations

import pytest

from hostler_hub.runtime import login_throttle
from hostler_hub.runtime.login_throttle import FAILURES, WINDOW_S, LoginThrottle
from hostler_hub.runtime.virtual_clock import VirtualClock

HERE, THERE = "192.0.2.1", "192.0.2.2"


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(1_000_000_000.0)


@pytest.fixture
def throttle(clock: VirtualClock) -> LoginThrottle:
    return LoginThrottle(clock.monotonic)


def fail(throttle: LoginThrottle, client: str, name: str | None, times: int = FAILURES) -> None:
    for _ in range(times):
        assert throttle.wait_s(client, name) == 0
        throttle.count(client, name)


def test_V19_a_known_name_waits_for_its_own_failures_alone(throttle: LoginThrottle) -> None:
    fail(throttle, HERE, "bad")
    assert throttle.wait_s(HERE, "bad") == WINDOW_S
    assert throttle.wait_s(HERE, "good") == 0
    assert throttle.wait_s(THERE, "bad") == 0


def test_unknown_names_wait_for_all_failures_of_their_client(throttle: LoginThrottle) -> None:
    fail(throttle, HERE, None, FAILURES - 1)
    fail(throttle, HERE, "known", 1)
    assert throttle.wait_s(HERE, None) == WINDOW_S
    assert throttle.wait_s(THERE, None) == 0
    assert throttle.wait_s(HERE, "known") == 0


def test_a_minute_later_it_is_over(throttle: LoginThrottle, clock: VirtualClock) -> None:
    fail(throttle, HERE, "bad")
    clock.advance(WINDOW_S - 0.5)
    assert throttle.wait_s(HERE, "bad") == 1
    clock.advance(0.5)
    fail(throttle, HERE, "bad")
    assert throttle.wait_s(HERE, "bad") == WINDOW_S


def test_attempts_that_were_right_do_not_count(throttle: LoginThrottle) -> None:
    for _ in range(3 * FAILURES):
        assert throttle.wait_s(HERE, "good") == 0
        throttle.count(HERE, "good")
        throttle.take_back(HERE, "good")
    assert throttle.wait_s(HERE, None) == 0


def test_V15_it_remembers_a_bounded_number(
    throttle: LoginThrottle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(login_throttle, "ENTRIES", 5)
    for number in range(20):
        throttle.count(HERE, f"name{number}")
        throttle.take_back(HERE, "a name that was never counted")
    assert len(throttle) == 5
