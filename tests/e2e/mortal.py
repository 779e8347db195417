"""The hub's own program, killed at one point of its work: `mortal_hub.py POINT serve ...`.

Only the named function is wrapped, so that SIGKILL comes exactly before or after it, which from
outside would be a matter of luck. Each driver that has points of its own has a program of its own.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NoReturn

from crash_points import Death, armed, place

from hostler_hub import cli

Points = Mapping[str, tuple[Any, str]]
"""A name that says before or after what: what it is an attribute of, and its name there."""
Orders = Mapping[str, Callable[[], None]]
"""A name: arranges a death that is no function's, but an order's on its way."""

_NONE: Mapping[str, Any] = MappingProxyType({})


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def die_awaited() -> None:
    die()


def serve(
    driver: type,
    points: Points = _NONE,
    orders: Orders = _NONE,
    driver_methods: Mapping[str, str] = _NONE,
) -> NoReturn:
    """Takes the point from the arguments: the driver's own, or one of `crash_points`."""
    point = sys.argv.pop(1)
    if point in orders:
        orders[point]()
        sys.exit(cli.main())
    owner, name = points[point] if point in points else place(point, driver, driver_methods)
    with armed(point, owner, name, Death(die_awaited, die)):
        sys.exit(cli.main())
