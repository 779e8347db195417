"""Ranges of versions: `>=2.30`, `>=3.9, <4`, or `*` for any. Pure.

    range   = "*" | bound { "," bound }
    bound   = operator VERSION

The signs and words are those of `requirements`, the conditions on facts, where order is for numbers
alone: a version is no number, 2.30 comes after 2.9. What is missing is zero: 3.9 is 3.9.0.
"""

from __future__ import annotations

import functools
import itertools
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hostler_hub.specs.conditions import ORDER, Token, tokens
from hostler_hub.specs.errors import ConditionError

_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    **ORDER,
    "==": operator.eq,
    "!=": operator.ne,
}
_VERSION = re.compile(r"\d{1,9}(?:\.\d{1,9}){0,9}")


@dataclass(frozen=True, slots=True)
class Bound:
    operator: str
    version: str

    def __str__(self) -> str:
        return f"{self.operator}{self.version}"

    def holds(self, version: str) -> bool:
        mine, other = zip(*_paired(version, self.version), strict=True)
        return _COMPARE[self.operator](mine, other)


@dataclass(frozen=True, slots=True)
class Range:
    """A range of versions. All of its bounds must hold; without bounds every version is in it, also
    an unknown one.
    """

    bounds: tuple[Bound, ...]

    def __str__(self) -> str:
        return ", ".join(map(str, self.bounds)) or "any version"

    def holds(self, version: str | None) -> bool:
        """Whether ``version`` is in the range: digits with points between them, or None if it is
        unknown.
        """
        if version is None or not _VERSION.fullmatch(version):
            return not self.bounds
        return all(bound.holds(version) for bound in self.bounds)


@functools.lru_cache(maxsize=1024)
def parse(text: str) -> Range:
    """Parse a range. Raises ConditionError."""
    if text.strip() == "*":
        return Range(())
    rest = iter(tokens(text))
    bounds = []
    while True:
        bounds.append(_bound(next(rest), next(rest, None)))
        after = next(rest)
        if after.kind == "end":
            return Range(tuple(bounds))
        if (after.kind, after.text) != ("mark", ","):
            raise ConditionError(f'here should be "," or the end, not {after.text}', after.position)


def _bound(sign: Token, version: Token | None) -> Bound:
    if sign.kind != "operator":
        signs = " ".join(_COMPARE)
        raise ConditionError(f"here should be one of {signs}, as in >=2.30", sign.position)
    if version is None or not _VERSION.fullmatch(version.text):
        raise ConditionError("here should be a version such as 2.30", sign.position)
    return Bound(sign.text, version.text)


def _paired(one: str, other: str) -> list[tuple[int, int]]:
    parts = itertools.zip_longest(one.split("."), other.split("."), fillvalue="0")
    return [(int(mine), int(theirs)) for mine, theirs in parts]
