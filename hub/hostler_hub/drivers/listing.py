"""Lists what several places have, each by itself: one that is silent hides nothing of the others.

A place is a host, a daemon, or a region with credentials. `at_each` asks all places at once, each
under a deadline of its own, and raises IncompleteList if some did not answer: the exception has
what the others listed. A driver that raises another exception has not answered for any place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog
from pydantic import ValidationError

from hostler_hub.drivers.contract import DriverOptions, Owned
from hostler_hub.drivers.errors import DriverError, ProviderFailed

_log = structlog.get_logger(__name__)

PLACE_DEADLINE_S = 100.0

Options = TypeVar("Options", bound=DriverOptions)


@dataclass(frozen=True, slots=True)
class Place:
    """A place to ask. ``name`` is for people; ``where`` is the ``place`` of its options."""

    name: str
    where: str
    ask: Callable[[], Awaitable[Iterable[Owned]]]


@dataclass(frozen=True, slots=True)
class Silent:
    """A place that did not answer, and why. ``where`` is None if its options cannot be read."""

    name: str
    where: str | None
    reason: str


class IncompleteList(ProviderFailed):
    """Some places did not answer. ``owned`` is what the others have, ``silent`` says which did
    not.
    """

    def __init__(self, owned: Sequence[Owned], silent: Sequence[Silent]) -> None:
        super().__init__("; ".join(each.reason for each in silent))
        self.owned = owned
        self.silent = silent


async def at_each(
    driver: str, places: Sequence[Place], unread: Sequence[Silent] = ()
) -> list[Owned]:
    """List what all the places have. Raises IncompleteList, also if some options are ``unread``."""
    answers = await asyncio.gather(*(_answer(driver, place) for place in places))
    silent = [*unread, *(each for each in answers if isinstance(each, Silent))]
    owned = [each for listed in answers if not isinstance(listed, Silent) for each in listed]
    if silent:
        raise IncompleteList(owned, silent)
    return owned


def read(
    driver: str, model: type[Options], places: Iterable[Mapping[str, Any]]
) -> tuple[list[Options], list[Silent]]:
    """Read the different options among `places`; thousands of workers may have the same. Those that
    are not valid (any more) are returned as places that did not answer.
    """
    different = {repr(sorted(each.items(), key=str)): each for each in places}
    read = [_read(driver, model, each) for each in different.values()]
    unread = [each for each in read if isinstance(each, Silent)]
    return [each for each in read if not isinstance(each, Silent)], unread


def _read(driver: str, model: type[Options], options: Mapping[str, Any]) -> Options | Silent:
    try:
        return model.of(options)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        reason = f"{driver}: driver_options.{where}: {first['msg']}"
        return Silent("a worker whose options are not valid", None, reason)


async def _answer(driver: str, place: Place) -> list[Owned] | Silent:
    try:
        async with asyncio.timeout(PLACE_DEADLINE_S):
            return list(await place.ask())
    except TimeoutError:
        reason = f"{driver}: {place.name}: no answer within {PLACE_DEADLINE_S:g} s"
    except DriverError as error:
        reason = str(error)
    except Exception as error:  # noqa: BLE001 - a fault at one place must not hide the others
        _log.error("listing a place failed", driver=driver, place=place.name, exc_info=error)
        reason = f"{driver}: {place.name}: {type(error).__name__}: {error}"
    return Silent(place.name, place.where, reason)
