"""Enforces a job's limits on silence, duration and number of lines."""

from __future__ import annotations

from typing import Callable

from hostler_agent.clock import Clock, Timer
from hostler_agent.jobs.plan import JobLimits
from hostler_agent.jobs.receipt import Ended


class Watch:
    """Calls `stop` with the way the job ends and the reason when a limit is exceeded; possibly more
    than once.

    A job whose output is not taken, because the hub does not take it, is not silent: the time does
    not count while `held_back`.
    """

    def __init__(self, limits: JobLimits, clock: Clock, stop: Callable[[Ended, str], None]) -> None:
        self._limits = limits
        self._clock = clock
        self._stop = stop
        self._timers: dict[str, Timer] = {}
        self._heard_at = 0.0
        self._holders_back = 0
        self._lines = 0
        self._return_seen = False

    def start(self) -> None:
        self._heard_at = self._clock.awake()
        if self._limits.timeout_s:
            self._timers["silence"] = self._clock.call_later(
                self._limits.timeout_s, self._check_silence
            )
        if self._limits.max_time_s:
            self._timers["duration"] = self._clock.call_later(
                self._limits.max_time_s, self._end_duration
            )

    def close(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    @property
    def held_back(self) -> bool:
        return self._holders_back > 0

    def heard(self) -> None:
        """Record that output has arrived and waits to be taken."""
        self._holders_back += 1

    def taken(self) -> None:
        """Record that output was taken; the time of silence begins anew."""
        self._holders_back -= 1
        self._heard_at = self._clock.awake()

    def count_lines(self, data: bytes) -> None:
        """Count the lines in `data`. A line ends with LF, CR or CR LF, as in Buildbot."""
        allowed = self._limits.max_lines
        if allowed is None:
            return
        self._lines += data.count(b"\n") + data.count(b"\r") - data.count(b"\r\n")
        if self._return_seen and data.startswith(b"\n"):
            self._lines -= 1
        self._return_seen = data.endswith(b"\r")
        if self._lines > allowed:
            why = f"command exceeds max lines: {self._lines}/{allowed} written/allowed"
            self._stop(Ended.TALKATIVE, why)

    def _check_silence(self) -> None:
        limit_s = self._limits.timeout_s or 0.0
        now = self._clock.awake()
        silent_since = now if self.held_back else self._heard_at
        if now - silent_since >= limit_s:
            self._stop(Ended.SILENT, f"command timed out: {limit_s:g} seconds without output")
            return
        left_s = silent_since + limit_s - now
        self._timers["silence"] = self._clock.call_later(left_s, self._check_silence)

    def _end_duration(self) -> None:
        why = f"command timed out: {self._limits.max_time_s:g} seconds elapsed"
        self._stop(Ended.TIMEOUT, why)
