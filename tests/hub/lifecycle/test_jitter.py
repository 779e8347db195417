"""Places in time: within the bounds, steady, and apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler_hub.lifecycle.jitter import delay_to_next_s, phase_of

intervals_s = st.sampled_from([0.5, 10.0, 20.0, 300.0])
instants = st.floats(0, 4e9)


@given(st.text(), instants, intervals_s)
def test_the_next_turn_is_within_the_interval(name: str, at: float, interval_s: float) -> None:
    wait_s = delay_to_next_s(name, at, interval_s)
    assert 0 < wait_s <= interval_s * (1 + 1e-5)


@given(st.text(), instants, intervals_s, st.floats(0, 0.4))
def test_from_turn_to_turn_it_is_the_interval_however_late_one_was(
    name: str, at: float, interval_s: float, late: float
) -> None:
    turn_at = at + delay_to_next_s(name, at, interval_s)
    late_s = late * interval_s
    next_at = turn_at + late_s + delay_to_next_s(name, turn_at + late_s, interval_s)
    assert next_at - turn_at == pytest.approx(interval_s, abs=1e-4)


def test_who_begins_together_goes_apart() -> None:
    """A thousand in ten seconds: no tenth of a second has thirty of them."""
    waits = [delay_to_next_s(f"worker-{number}", 1e9, 10.0) for number in range(1000)]
    tenths = [int(wait_s * 10) for wait_s in waits]
    assert max(tenths.count(each) for each in set(tenths)) < 30
    assert {0 <= phase_of(f"worker-{number}") < 1 for number in range(1000)} == {True}
