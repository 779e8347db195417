"""What equal and printable frozen dataclasses have in common, written once.

`@dataclass` generates and compiles these methods for every class; for the wire's thirty classes
that was a tenth of the time in which an agent starts. They are declared with eq=False, repr=False.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any


class Record:
    """Equal when of the same class with equal fields; prints like a dataclass."""

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
