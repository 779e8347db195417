"""Selects the workers that an order is about by their properties instead of their names.

The hub resolves a selection when it takes the order, so that one request reaches exactly the
workers that fit at that moment, however many they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, Field, StrictBool, model_validator

from hostler_hub.lifecycle.model import Mode, State
from hostler_hub.specs.fields import STRICT, DriverName, Labels, Properties, WorkerName, refuse
from hostler_hub.workers.registry import Entry


def _one_or_many(value: object) -> object:
    return (value,) if isinstance(value, str) else value


_OneOrMany = BeforeValidator(_one_or_many)
_Drivers = Annotated[tuple[DriverName, ...], Field(min_length=1, max_length=64), _OneOrMany]
_Groups = Annotated[tuple[WorkerName, ...], Field(min_length=1, max_length=64), _OneOrMany]
_States = Annotated[tuple[State, ...], Field(min_length=1, max_length=len(State)), _OneOrMany]
_Modes = Annotated[tuple[Mode, ...], Field(min_length=1, max_length=len(Mode)), _OneOrMany]
_Labels = Annotated[Labels, Field(min_length=1), _OneOrMany]


class Select(BaseModel):
    """Conditions on workers, all of which must hold; of a list of alternatives one must.

    `labels` and `properties` are all required. A selection without any condition is refused: to
    select every worker, say `all: true`.
    """

    model_config = STRICT

    all: StrictBool = False
    driver: _Drivers | None = None
    group: _Groups | None = None
    labels: _Labels | None = None
    state: _States | None = None
    mode: _Modes | None = None
    missing: StrictBool | None = None
    quarantined: StrictBool | None = None
    properties: Properties | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        conditions = [getattr(self, name) for name in type(self).model_fields if name != "all"]
        if not self.all and not any(each is not None and each != {} for each in conditions):
            raise refuse("no_condition", "give at least one condition, or all: true for everybody")
        return self

    def fits(self, entry: Entry) -> bool:
        """Whether the worker, as it is now, meets every condition."""
        return all(
            _FITS[name](wanted, entry)
            for name in _FITS
            if (wanted := getattr(self, name)) is not None
        )


def _has(wanted: Mapping[str, Any], entry: Entry) -> bool:
    has = entry.properties
    return all(key in has and has[key] == value for key, value in wanted.items())


_FITS: dict[str, Callable[[Any, Entry], bool]] = {
    "driver": lambda wanted, entry: entry.definition.driver in wanted,
    "group": lambda wanted, entry: entry.definition.group in wanted,
    "labels": lambda wanted, entry: set(wanted) <= set(entry.definition.labels),
    "state": lambda wanted, entry: entry.life.state in wanted,
    "mode": lambda wanted, entry: entry.life.mode in wanted,
    "missing": lambda wanted, entry: wanted == (entry.life.missing_since is not None),
    "quarantined": lambda wanted, entry: wanted == (entry.life.quarantine_until is not None),
    "properties": _has,
}
