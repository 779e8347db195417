"""Asks a driver what its places have, and tells which places did not answer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from pydantic import ValidationError

from hostler_hub.drivers.contract import Driver, Owned
from hostler_hub.drivers.errors import DriverError
from hostler_hub.drivers.listing import IncompleteList
from hostler_hub.workers.reconcile.report import Unanswered

_log = structlog.get_logger(__name__)

LIST_DEADLINE_S = 120.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a driver listed, and its places that did not answer. ``silent_at`` has the ``place`` of
    their options; None in it stands for a place that is not known.
    """

    owned: Sequence[Owned]
    unanswered: Sequence[Unanswered] = ()
    silent_at: frozenset[str | None] = frozenset()
    is_none: bool = False
    """Whether no place answered: then nothing is known."""

    def hides(self, driver: Driver, options: Mapping[str, Any]) -> bool:
        """Whether an instance with these options may be at a place that did not answer."""
        if not self.silent_at:
            return False
        try:
            return driver.options_model.of(options).place in self.silent_at
        except ValidationError:
            return True


async def ask(name: str, driver: Driver, places: Sequence[Mapping[str, Any]]) -> Answer:
    """Ask the driver to list what is at the places."""
    try:
        async with asyncio.timeout(LIST_DEADLINE_S):
            return Answer(list(await driver.list_owned(places)))
    except IncompleteList as incomplete:
        unanswered = [Unanswered(name, each.name, each.reason) for each in incomplete.silent]
        silent_at = frozenset(each.where for each in incomplete.silent)
        return Answer(list(incomplete.owned), unanswered, silent_at)
    except Exception as error:  # noqa: BLE001 - a driver may be anybody's code
        return Answer([], [Unanswered(name, "", reason_of(name, error))], is_none=True)


def reason_of(driver: str, error: Exception) -> str:
    """The error of a driver's call, as a text for people."""
    if isinstance(error, TimeoutError):
        return f"{driver}: no answer within the deadline"
    if isinstance(error, DriverError):
        return str(error)
    _log.error("driver broke its contract", driver=driver, exc_info=error)
    return f"{driver}: it broke: {type(error).__name__}: {error}"
