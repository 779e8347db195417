"""Records why builds wait: one decision for each build that waits for a while, and another one
whenever its rule changes.
"""

from __future__ import annotations

from hostler_hub.runtime.clock import Clock
from hostler_hub.scheduling.backlog import Backlog
from hostler_hub.scheduling.decision_log import DecisionLog
from hostler_hub.scheduling.reasons import Reasons, Skip
from hostler_hub.workers.decisions import Decision, DecisionKind

# A build is skipped once it has waited for AFTER_S; the backlog is read at most each EVERY_S.
AFTER_S = 1.0
EVERY_S = 5.0
# Rules of builds that are not skipped: their slot or instance is coming.
_UNDER_WAY = {"free", "starting"}


class SkipRecorder:
    """Writes the reasons of waiting builds into the log of decisions. It reads the whole backlog
    each time, and finds the reason once for each kind of build.
    """

    def __init__(
        self, clock: Clock, backlog: Backlog, reasons: Reasons, decision_log: DecisionLog
    ) -> None:
        self._clock = clock
        self._backlog = backlog
        self._reasons = reasons
        self._decision_log = decision_log
        self._coming = False
        self._last = float("-inf")

    def soon(self) -> None:
        """Schedule record(), because a plan left builds without a slot: not before ``AFTER_S`` from
        now, nor before ``EVERY_S`` after the last record().
        """
        if not self._coming:
            self._coming = True
            wait_s = max(AFTER_S, self._last + EVERY_S - self._clock.monotonic())
            self._clock.call_after(wait_s, self.record)

    def record(self) -> None:
        """Write why each build that has waited for ``AFTER_S`` is passed over."""
        self._coming = False
        now, self._last = self._clock.now(), self._clock.monotonic()
        waiting = list(self._backlog.waiting())
        self._decision_log.keep("build", {build.id for build in waiting})
        skips: dict[tuple[str, bool], Skip] = {}
        for build in waiting:
            if build.submitted_at > now - AFTER_S:
                continue
            key = (build.kind, build.not_before > now)
            if key not in skips:
                skips[key] = self._reasons.skip_of(build, now)
            skip = skips[key]
            if skip.rule in _UNDER_WAY:
                self._decision_log.done(("build", build.id))
                continue
            decision = Decision(
                at=now,
                kind=DecisionKind.SKIP,
                rule=skip.rule,
                text=skip.text,
                build=build.id,
                numbers=skip.numbers,
            )
            self._decision_log.skipped(("build", build.id), decision)
