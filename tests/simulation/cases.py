"""Scenarios as tests: a coroutine that is given a World becomes a test function."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from simulation.world import simulate


def simulated(**settings: Any) -> Callable[[Callable[..., Any]], Callable[..., None]]:
    """Decorate ``async def test_x(world, ...)``; the rest of its parameters are pytest's."""

    def decorate(scenario: Callable[..., Any]) -> Callable[..., None]:
        @functools.wraps(scenario)
        def test(**given: Any) -> None:
            simulate(lambda world: scenario(world, **given), **settings)

        signature = inspect.signature(scenario)
        rest = [each for name, each in signature.parameters.items() if name != "world"]
        test.__signature__ = signature.replace(parameters=rest)  # type: ignore[attr-defined]
        del test.__wrapped__  # type: ignore[attr-defined]
        return test

    return decorate
