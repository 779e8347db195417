"""Equality and repr() for frozen dataclasses, defined once in a base class.

`@dataclass` generates and compiles these methods for every class; for the thirty classes of the
wire protocol that took a tenth of the agent's start time. Subclasses are declared with eq=False,
repr=False.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any


class Record:
    """Records are equal if they have the same class and equal fields; repr() is that of a
    dataclass.
    """

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash((type(self), *self.__dict__.values()))

    def __repr__(self) -> str:
        shown: list[Any] = [field.name for field in fields(self) if field.repr]  # type: ignore[arg-type]
        inside = ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)
        return f"{type(self).__qualname__}({inside})"
