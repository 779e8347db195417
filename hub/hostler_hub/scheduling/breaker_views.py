"""Breakers as the REST API shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from hostler_hub.runtime.clock import instant
from hostler_hub.scheduling.breakers import Paused, sentence
from hostler_hub.specs.view import View

REMEDY = (
    "mend what the starts fail of, then resume one of the workers or close the breaker; "
    "otherwise a single one is tried when the pause is over"
)


class BreakerView(View):
    """Whether workers are started at all after failures."""

    state: Literal["closed", "open", "half-open"] = Field(
        description="`open`: none is started. `half-open`: one is tried."
    )
    domain: str = Field(
        description="What has failed for several workers: a host, an image, a daemon, a region, a "
        "group, a driver."
    )
    failures: int = Field(description="How many starts in a row have failed.")
    until: str | None = Field(description="Until when none is started.")
    error: str | None = Field(description="What the last start failed of.")


class OpenBreakerView(BreakerView):
    """A breaker that is not closed."""

    text: str = Field(description="That starts are paused, until when and why, in a sentence.")
    remedy: str = Field(description="What to do, in a sentence.")
    workers: list[str] = Field(description="The first of the workers that it is about, by name.")
    workers_count: int = Field(description="How many workers it is about.")


class OpenBreakerList(View):
    """Every breaker that is not closed."""

    items: list[OpenBreakerView] = Field(description="The breakers, by failure domain.")


class CloseBreakerResult(View):
    """What closing one breaker changed."""

    domain: str = Field(description="The failure domain.")
    changed: bool = Field(description="Whether starts were paused.")


class CloseBreakerResults(View):
    """One result per failure domain, in the request's order."""

    results: list[CloseBreakerResult] = Field(description="The results.")


def breaker_view(paused: Paused, now: float) -> BreakerView:
    """The view of the breaker of one failure domain, closed or not."""
    breaker = paused.breaker
    return BreakerView(
        state=breaker.state(now),
        domain=paused.domain,
        failures=breaker.failures,
        until=instant(breaker.open_until),
        error=breaker.error or None,
    )


_WORKERS_SHOWN = 20


def open_breaker_view(paused: Paused, workers: Sequence[str], now: float) -> OpenBreakerView:
    """The view of a breaker that is not closed. ``workers``: the names of its workers."""
    return OpenBreakerView(
        **breaker_view(paused, now).model_dump(),
        text=sentence(paused.domain, paused.breaker, now),
        remedy=REMEDY,
        workers=list(workers[:_WORKERS_SHOWN]),
        workers_count=len(workers),
    )
