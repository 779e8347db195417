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
    """How long from ``at`` until the next turn of who has one every ``interval_s``: at most that.

    Those that were held up together go apart again.
    """
    turns = math.floor(at / interval_s - share_of(name) + _ROUNDING) + 1
    return (turns + share_of(name)) * interval_s - at
