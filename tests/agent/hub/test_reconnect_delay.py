from __future__ import annotations

from hostler_agent.hub.reconnect_delay import ReconnectDelay


def test_the_ceiling_doubles_up_to_two_minutes() -> None:
    delay = ReconnectDelay(lambda: 0.5)
    delays = [delay.next_delay_s() for _ in range(10)]
    assert delays == [0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_the_jitter_is_full() -> None:
    """A12: everybody's first delay is anywhere between nothing and a second."""
    numbers = iter([0.0, 0.0, 0.999])
    delay = ReconnectDelay(lambda: next(numbers))
    assert delay.next_delay_s() == 0
    assert delay.next_delay_s() == 0
    assert delay.next_delay_s() == 0.999 * 4


def test_success_starts_over() -> None:
    delay = ReconnectDelay(lambda: 1.0)
    assert [delay.next_delay_s() for _ in range(3)] == [1, 2, 4]
    delay.succeeded()
    assert delay.next_delay_s() == 1


def test_what_the_hub_asks_for_is_the_least() -> None:
    delay = ReconnectDelay(lambda: 0.25)
    assert delay.next_delay_s(30) == 30.25
    assert delay.next_delay_s(1e9) == 300.5


def test_it_runs_for_years() -> None:
    delay = ReconnectDelay(lambda: 0.0)
    for _ in range(5000):
        delay.next_delay_s()
