"""The one backoff of the hub, for any numbers; and the numbers that the hub uses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler_hub.drivers.ec2 import cloud
from hostler_hub.drivers.transports.ssh import session, tunnel
from hostler_hub.lifecycle import draft
from hostler_hub.lifecycle.backoff import Backoff
from hostler_hub.notify import outbox
from hostler_hub.scheduling import backlog, breaker
from hostler_hub.store.tuning import Tuning

BACKOFFS = st.builds(
    lambda first_s, times, factor, jitter: Backoff(first_s, first_s * times, factor, jitter),
    first_s=st.floats(0.0001, 100),
    times=st.floats(1, 10_000),
    factor=st.floats(1.1, 4),
    jitter=st.floats(0, 1),
)
FAILURES = st.integers(1, 1_000_000)


@given(backoff=BACKOFFS, failures=FAILURES, share=st.floats(0, 1))
def test_a_delay_stays_within_its_bounds_and_its_jitter(
    backoff: Backoff, failures: int, share: float
) -> None:
    middle_s = backoff.delay_s(failures)
    assert backoff.first_s <= middle_s <= backoff.longest_s
    spread_s = (backoff.jitter + 1e-9) * middle_s  # floats are rounded
    assert abs(backoff.delay_s(failures, share) - middle_s) <= spread_s


@given(backoff=BACKOFFS, failures=FAILURES)
def test_delays_never_shrink(backoff: Backoff, failures: int) -> None:
    assert backoff.delay_s(failures) <= backoff.delay_s(failures + 1)


@given(backoff=BACKOFFS, failures=st.integers(1, 200))
def test_counting_failures_or_keeping_the_delay_is_the_same(
    backoff: Backoff, failures: int
) -> None:
    kept_s = 0.0
    for _ in range(failures):
        kept_s = backoff.after_s(kept_s)
    assert kept_s == pytest.approx(backoff.delay_s(failures))


def test_no_failure_counts_as_the_first() -> None:
    assert Backoff(1, 60).delay_s(0) == 1


@pytest.mark.parametrize(
    ("backoff", "delays_s"),
    [
        (backlog.RETRY, (1, 2, 4, 8, 16, 32, 60)),
        (breaker.PAUSES, (30, 60, 120, 240, 480, 960, 1920, 3600)),
        (draft.QUARANTINE, (10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600)),
        (draft.DESTROY_RETRY, (1, 2, 4, 8, 16, 32, 64, 128, 256, 300)),
        (outbox.RESEND, (30, 60, 120, 240, 480, 960, 1920, 3600)),
        (Tuning().retry, (0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1)),
        (cloud.THROTTLED, (1, 2, 4, 8, 16, 20)),
        (tunnel.REOPEN, (2, 4, 8, 16, 30)),
    ],
)
def test_the_numbers_of_the_hub(backoff: Backoff, delays_s: tuple[float, ...]) -> None:
    assert backoff.delays_s(len(delays_s)) == pytest.approx(delays_s)
    assert backoff.delay_s(len(delays_s) + 1) == backoff.longest_s == delays_s[-1]


def test_an_ssh_session_is_tried_so_often() -> None:
    assert pytest.approx((0.05, 0.1, 0.2, 0.4, 0.8)) == session.SESSION_PAUSES_S
