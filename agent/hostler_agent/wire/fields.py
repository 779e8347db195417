"""Checks and takes values of a known type from a map that a peer sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any, Callable

from hostler_agent.wire.errors import ProtocolError


@dataclass(frozen=True)
class FieldType:
    """A type of value: its name in error messages, its test, and whether the key must be
    present.
    """

    name: str
    accepts: Callable[[Any], bool]
    required: bool = True


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    # NaN and the infinities pass for floats, and for nothing that a number is needed for.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)


def _is_exit_code(value: Any) -> bool:
    # POSIX and Buildbot: -1 or minus a signal to 255. Windows: 32 bits, with and without a sign.
    return _is_integer(value) and -(2**31) <= value < 2**32


def _is_pair_list(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(
        isinstance(pair, (list, tuple)) and len(pair) == 2 and isinstance(pair[0], str)
        for pair in value
    )


def _is_text_list(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value)


Keys = Mapping[str, FieldType]
"""The keys that a map may have, with the type of each value."""

ANY = FieldType("anything", lambda _: True)
BOOLEAN = FieldType("a boolean", lambda value: isinstance(value, bool))
BYTES = FieldType("bytes", lambda value: isinstance(value, bytes))
EXIT_CODE = FieldType("an exit code of up to 32 bits", _is_exit_code)
INTEGER = FieldType("an integer", _is_integer)
LENGTH = FieldType("a length", lambda value: _is_integer(value) and value >= 0)
POSITIVE = FieldType("a positive integer", lambda value: _is_integer(value) and value > 0)
DURATION = FieldType("a duration in seconds", lambda value: _is_number(value) and value >= 0)
NUMBER = FieldType("a number", _is_number)
TEXT = FieldType("a string", lambda value: isinstance(value, str))
MAP = FieldType("a map", lambda value: isinstance(value, dict))
LIST = FieldType("a list", lambda value: isinstance(value, (list, tuple)))
PAIRS = FieldType("a list of [name, value] pairs", _is_pair_list)
TEXTS = FieldType("a list of strings", _is_text_list)


def optional(kind: FieldType) -> FieldType:
    """The same type, but the value may also be null or left out."""
    return FieldType(
        f"{kind.name} or null", lambda value: value is None or kind.accepts(value), False
    )


def nullable(kind: FieldType) -> FieldType:
    """The same type, but the value may also be null. It must not be left out."""
    return replace(optional(kind), required=True)


def take(where: str, mapping: Mapping[str, Any], key: str, kind: FieldType) -> Any:
    """Return `mapping[key]`. Raises ProtocolError, with the operation `where`, if it is missing or
    of another type.
    """
    if key not in mapping:
        raise ProtocolError(f"{where}: key {key!r} is missing")
    value = mapping[key]
    if not kind.accepts(value):
        raise ProtocolError(f"{where}: key {key!r} must be {kind.name}, not {_shown(value)}")
    return value


def _shown(value: Any) -> str:
    """The value as an error message may repeat it: a number as it is, everything else by its
    type.
    """
    return str(value) if _is_integer(value) else type(value).__name__


def take_map(where: str, mapping: Mapping[str, Any], kinds: Keys) -> dict[str, Any]:
    """Return the values of all keys of `kinds`; None for an optional one that is left out. Other
    keys in `mapping` are ignored. Raises ProtocolError.
    """
    taken = {}
    for key, kind in kinds.items():
        taken[key] = take(where, mapping, key, kind) if key in mapping or kind.required else None
    return taken
