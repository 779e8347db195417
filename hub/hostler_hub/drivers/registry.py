"""Finds drivers by entry point, so that a third party can add one without touching the hub."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from pydantic import ValidationError

from hostler_hub.drivers.contract import Driver, OptionsRefused

GROUP = "hostler.drivers"


def load() -> Mapping[str, type[Driver]]:
    """Every installed driver by its name. A driver that cannot be imported stops the start."""
    return {point.name: point.load() for point in entry_points(group=GROUP)}


def check_options(driver: type[Driver], options: Mapping[str, Any]) -> None:
    """Raise OptionsRefused with one sentence that names the option and what is wrong with it."""
    try:
        driver.options_model.model_validate(dict(options))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        known = ", ".join(driver.options_model.model_fields) or "none"
        problem = f"{where}: {first['msg']}" if where else first["msg"]
        raise OptionsRefused(
            f"driver {driver.name} does not take these driver_options: {problem} "
            f"(it knows: {known})"
        ) from None
