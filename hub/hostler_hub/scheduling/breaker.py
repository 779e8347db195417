"""A circuit breaker on the failed starts of a failure domain (P5, P9, V19). Pure.

A failure domain is what starts have in common and can fail together: a host, a daemon, an image, a
region, a group, a driver. Each worker whose start fails is quarantined by itself; the breaker is
for causes that workers share. What it counts by are its *members*: workers where they are alike,
else the narrower domains inside it.

It opens after a number of failures in a row of more than one member. Members that failed are then
not started until its pause is over; then one of them is, as a probe: if that fails, the pause
doubles. Members that have not failed since its last success are no suspects: a bounded number of
starts of them are let through also during the pause, so that one broken host delays no other, and
an outage still costs a bounded number of starts. The first success closes it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

from hostler_hub.lifecycle.backoff import Backoff

PAUSES = Backoff(first_s=30.0, longest_s=3600.0)
# Of how many members a breaker remembers that they failed (V15).
_REMEMBERED = 1000


class Lane(StrEnum):
    """On what terms an open breaker lets a member start."""

    PROBE = "probe"  # it failed, or is like those that did: one at a time, after the pause
    PROVEN = "proven"  # its last start succeeded
    UNTRIED = "untried"  # nothing is known of it


@dataclass(frozen=True, slots=True)
class Breaker:
    """The state of a breaker.

    ``failures``: failed starts in a row. ``failed_members``: the members they were of. ``allowed``:
    the number of failures that opened it. ``open_until``: when its pause ends (seconds since the
    epoch), None while it is closed.
    """

    failures: int = 0
    failed_members: frozenset[str] = frozenset()
    error: str = ""
    allowed: int = 1
    open_until: float | None = None
    pause_s: float = 0.0

    def failed(self, at: float, member: str, error: str, allowed: int) -> Breaker:
        """The breaker after a failed start of ``member``. ``allowed``: the number of failures
        that opens it.
        """
        known = self.failed_members
        made = replace(
            self,
            failures=self.failures + 1,
            failed_members=known | {member} if len(known) < _REMEMBERED else known,
            error=error,
            allowed=allowed,
        )
        if self.open_until is None:
            opens = made.failures >= allowed and len(made.failed_members) > 1
        else:
            opens = not self._pauses(at)  # the probe; not what was under way when it opened
        if not opens:
            return made
        pause_s = PAUSES.after_s(self.pause_s)
        return replace(made, open_until=at + pause_s, pause_s=pause_s)

    def succeeded(self) -> Breaker:
        """The breaker after a successful start: closed, with no failures."""
        return Breaker()

    def starts(self, now: float, lane: Lane, under_way: int) -> int | None:
        """How many more starts the breaker lets through in this lane; None: any number.

        ``under_way``: for probes, those started since the pause ended, that are starting still (see
        ``probes_since``); for the other lanes the starts let through since the breaker opened.
        """
        if self.open_until is None:
            return None
        if lane is not Lane.PROBE:
            return max(0, self.allowed - under_way)
        return 0 if self._pauses(now) else max(0, 1 - under_way)

    def probes_since(self, now: float) -> float:
        """Since when a start counts as a probe: the pause's end (A9: of a clock that was set back,
        any time). A probe that neither fails nor succeeds holds others up for one more pause only.
        """
        if self.open_until is None:
            return now
        ended_at = self.open_until if self.open_until <= now else now - self.pause_s
        return max(ended_at, now - self.pause_s)

    def state(self, now: float) -> Literal["closed", "open", "half-open"]:
        if self.open_until is None:
            return "closed"
        return "open" if self._pauses(now) else "half-open"

    def _pauses(self, now: float) -> bool:
        """Whether the pause is not over. A clock that is set back does not make the
        pause longer (A9).
        """
        return self.open_until is not None and 0 < self.open_until - now <= self.pause_s
