"""Who begins together need not do everything together: a place in time for each, by its name."""

from __future__ import annotations

import math
import zlib

# What is due now, but for how the numbers were rounded, is not due again at once.
_ROUNDING = 1e-6


def share_of(name: str) -> float:
    """Of what there is to share, from 0 to 1; the same for the same name."""
    return zlib.crc32(name.encode()) / 2**32


def next_turn_s(name: str, at: float, interval_s: float) -> float:
    """How long from ``at`` until the next turn of who has one every ``interval_s``.

    After more than half an interval, and at most a whole one: the first turn is no later than
    without a place of its own, and those that were held up together go apart again.
    """
    half_s = interval_s / 2
    turns = math.floor(at / half_s - share_of(name) + _ROUNDING) + 2
    return (turns + share_of(name)) * half_s - at
