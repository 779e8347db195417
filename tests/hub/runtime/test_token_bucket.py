"""How long a sender must wait that has sent more than its share."""

from __future__ import annotations

import pytest

from hostler_hub.runtime.token_bucket import TokenBucket


def test_a_burst_is_free_and_the_rest_is_owed() -> None:
    now = 100.0
    bucket = TokenBucket(per_s=10, burst=20, monotonic=lambda: now)
    assert bucket.take(20) == 0
    assert bucket.take(5) == pytest.approx(0.5)
    now += 0.5
    assert bucket.take(0) == 0
    assert bucket.take(1) == pytest.approx(0.1)
    now += 3600
    assert bucket.take(20) == 0
    assert bucket.take(1) == pytest.approx(0.1)
