"""Spreads periodic work of many workers over its interval, by a phase that each name has."""

from __future__ import annotations

import math
import zlib

# An instant that rounding puts just after ``at`` counts as passed.
_ROUNDING = 1e-6


def phase_of(name: str) -> float:
    """The phase of ``name`` within any interval: from 0 up to, but without, 1; always the same."""
    return zlib.crc32(name.encode()) / 2**32


def delay_to_next_s(name: str, at: float, interval_s: float) -> float:
    """Seconds from ``at`` to the next instant of ``name``: there is one in each ``interval_s``.

    At most ``interval_s``. Workers that were delayed together are spread again.
    """
    intervals = math.floor(at / interval_s - phase_of(name) + _ROUNDING) + 1
    return (intervals + phase_of(name)) * interval_s - at
