"""The agent's backoff, and that it waits as the hub's does."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hostler_agent.backoff import Backoff
from hostler_hub.lifecycle import backoff as hub


@given(
    first_s=st.floats(0.0001, 100),
    times=st.floats(1, 10_000),
    factor=st.floats(1.1, 4),
    failures=st.integers(0, 1_000_000),
)
def test_it_waits_as_the_hub_does(
    first_s: float, times: float, factor: float, failures: int
) -> None:
    ours = Backoff(first_s, first_s * times, factor)
    theirs = hub.Backoff(first_s, first_s * times, factor)
    assert ours.delay_s(failures) == theirs.delay_s(failures)
    assert first_s <= ours.delay_s(failures) <= first_s * times
