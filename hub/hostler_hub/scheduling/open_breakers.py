"""The use cases on breakers: see which are open, and close them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog

from hostler_hub.runtime.clock import Clock
from hostler_hub.scheduling.breaker_views import (
    CloseBreakerResult,
    OpenBreakerList,
    open_breaker_view,
)
from hostler_hub.scheduling.decision_log import DecisionLog
from hostler_hub.scheduling.start_breakers import StartBreakers

_log = structlog.get_logger(__name__)


class OpenBreakers:
    """The use cases on breakers. ``on_closed`` is called when one was closed, since it may allow
    other starts.
    """

    def __init__(
        self,
        clock: Clock,
        breakers: StartBreakers,
        decision_log: DecisionLog,
        on_closed: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._breakers = breakers
        self._decision_log = decision_log
        self._on_closed = on_closed

    def listing(self) -> OpenBreakerList:
        """Every breaker that is not closed, by failure domain."""
        now = self._clock.now()
        found = self._breakers.paused()
        return OpenBreakerList(
            items=[open_breaker_view(paused, workers, now) for paused, workers in found]
        )

    def close(self, domains: Sequence[str], *, by: str) -> list[CloseBreakerResult]:
        """Let the workers of these failure domains be started again. A domain whose starts are not
        paused is reported as unchanged.
        """
        results = [self._close(domain, by) for domain in dict.fromkeys(domains)]
        if any(each.changed for each in results):
            _log.info("breakers closed", by=by, domains=[e.domain for e in results if e.changed])
            self._on_closed()
        return results

    def _close(self, domain: str, by: str) -> CloseBreakerResult:
        decided = self._breakers.close(domain, self._clock.now(), by)
        if decided is not None:
            self._decision_log.note(decided)
        return CloseBreakerResult(domain=domain, changed=decided is not None)
