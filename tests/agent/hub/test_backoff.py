from __future__ import annotations

from hostler_agent.hub.backoff import Backoff


def test_the_ceiling_doubles_up_to_two_minutes() -> None:
    backoff = Backoff(lambda: 0.5)
    delays = [backoff.next_delay_s() for _ in range(10)]
    assert delays == [0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_the_jitter_is_full() -> None:
    """A12: everybody's first delay is anywhere between nothing and a second."""
    numbers = iter([0.0, 0.0, 0.999])
    backoff = Backoff(lambda: next(numbers))
    assert backoff.next_delay_s() == 0
    assert backoff.next_delay_s() == 0
    assert backoff.next_delay_s() == 0.999 * 4


def test_success_starts_over() -> None:
    backoff = Backoff(lambda: 1.0)
    assert [backoff.next_delay_s() for _ in range(3)] == [1, 2, 4]
    backoff.succeeded()
    assert backoff.next_delay_s() == 1


def test_what_the_hub_asks_for_is_the_least() -> None:
    backoff = Backoff(lambda: 0.25)
    assert backoff.next_delay_s(30) == 30.25
    assert backoff.next_delay_s(1e9) == 3600.5


def test_it_runs_for_years() -> None:
    backoff = Backoff(lambda: 0.0)
    for _ in range(5000):
        backoff.next_delay_s()
