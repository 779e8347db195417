"""Conditions on a worker's facts: `memory_mb >= 8000`, `os_id in [debian, ubuntu]`.

    condition = NAME operator value | NAME "in" "[" value { "," value } "]"
    operator  = "==" | "!=" | "<" | "<=" | ">" | ">="
    value     = number | "text" | 'text' | true | false | null | WORD

Values are typed: 12 is a number, "12" a text, and neither equals the other; order is for numbers
alone. A fact that a worker does not have matches nothing, not even `!=`: what is unknown is no
reason to run a build there. Text in, conditions out; no I/O.
"""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hostler_hub.specs.errors import ConditionError

Value = bool | int | float | str | None

LONGEST = 1024

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![A-Za-z0-9_.:/+-]))
      | (?P<word>[A-Za-z0-9_][A-Za-z0-9_.:/+-]*)
      | (?P<text>"[^"]*"|'[^']*')
      | (?P<operator>==|!=|<=|>=|<|>)
      | (?P<mark>[\[\],])
    )""",
    re.VERBOSE,
)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,127}")
_WORDS: dict[str, Value] = {"true": True, "false": False, "null": None}
ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition. Only ``in`` has more than one of ``values``."""

    fact: str
    operator: str
    values: tuple[Value, ...]

    def __str__(self) -> str:
        values = ", ".join(map(shown, self.values))
        return f"{self.fact} {self.operator} {f'[{values}]' if self.operator == 'in' else values}"

    def refusal(self, facts: Mapping[str, Any]) -> str | None:
        """Why a worker with these facts does not satisfy it, or None if it does."""
        if self.fact not in facts:
            return f"it has no fact {self.fact}"
        has = facts[self.fact]
        if self.operator in ORDER:
            if not _is_number(has):
                return f"its fact {self.fact} is {_kind(has)}, which has no order to {self}"
            met = ORDER[self.operator](has, self.values[0])
        else:
            met = any(_equal(has, value) for value in self.values) is not (self.operator == "!=")
        if met:
            return None
        return f"its fact {self.fact} is {shown(has)}, not {self._wanted()}{self._hint(has)}"

    def _wanted(self) -> str:
        if self.operator == "==":
            return shown(self.values[0])
        return str(self).removeprefix(self.fact).lstrip()

    def _hint(self, has: Any) -> str:
        """A hint for the likeliest mistake: os_version_id == 12, where the fact is the text
        "12".
        """
        if isinstance(has, str) and any(has == f"{value}" for value in self.values):
            return f' (it is a text: write {self.fact} {self.operator} "{has}")'
        return ""


@functools.lru_cache(maxsize=4096)
def parse(text: str) -> Condition:
    """Parse a condition. Raises ConditionError."""
    if len(text) > LONGEST:
        raise ConditionError(f"a condition has at most {LONGEST} characters", LONGEST + 1)
    return _Parser(text).condition()


@dataclass(frozen=True, slots=True)
class Token:
    kind: str
    text: str
    position: int


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = tokens(text)
        self._next = 0

    def condition(self) -> Condition:
        fact = self._fact()
        sign = self._take()
        if (sign.kind, sign.text) == ("word", "in"):
            values = self._list()
        elif sign.kind == "operator":
            values = (self._value(sign),)
        else:
            raise self._error(sign, "one of == != < <= > >= in")
        rest = self._take()
        if rest.kind != "end":
            raise self._error(rest, "the end: one condition per text")
        return Condition(fact, sign.text, values)

    def _fact(self) -> str:
        token = self._take()
        if token.kind != "word" or not _NAME.fullmatch(token.text):
            raise self._error(token, "the name of a fact")
        return token.text

    def _list(self) -> tuple[Value, ...]:
        self._mark("[")
        values = [self._member()]
        while (token := self._take()).text == "," and token.kind == "mark":
            values.append(self._member())
        if (token.kind, token.text) != ("mark", "]"):
            raise self._error(token, '"," or "]"')
        return tuple(values)

    def _mark(self, wanted: str) -> None:
        token = self._take()
        if (token.kind, token.text) != ("mark", wanted):
            raise self._error(token, f'"{wanted}"')

    def _value(self, sign: Token) -> Value:
        token = self._tokens[self._next]
        value = self._member()
        if sign.text in ORDER and not _is_number(value):
            raise ConditionError(
                f"{sign.text} compares numbers, and {token.text} is {_kind(value)}", token.position
            )
        return value

    def _member(self) -> Value:
        token = self._take()
        if token.kind == "number":
            return _number(token.text)
        if token.kind == "text":
            return token.text[1:-1]
        if token.kind == "word":
            return _WORDS.get(token.text, token.text)
        raise self._error(token, "a value (a number, a word, or a text in quotes)")

    def _take(self) -> Token:
        token = self._tokens[self._next]
        self._next = min(self._next + 1, len(self._tokens) - 1)
        return token

    def _error(self, token: Token, wanted: str) -> ConditionError:
        found = f"not {token.text}" if token.kind != "end" else "but the text ends"
        return ConditionError(f"here should be {wanted}, {found}", token.position)


def tokens(text: str) -> list[Token]:
    """The tokens of a condition; the last one marks the end. Raises ConditionError."""
    made: list[Token] = []
    at = 0
    end = len(text.rstrip())
    while at < end:
        found = _TOKEN.match(text, at)
        if found is None:
            start = at + len(text[at:]) - len(text[at:].lstrip())
            what = "this quote has no end" if text[start] in "\"'" else f"what is {text[start]!r}?"
            raise ConditionError(what, start + 1)
        kind = found.lastgroup or ""
        made.append(Token(kind, found[kind], found.start(kind) + 1))
        at = found.end()
    return [*made, Token("end", "", end + 1)]


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        return float(text)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _equal(has: Any, value: Value) -> bool:
    """Whether two values are equal by type and value: True is not 1 here, but 8 is 8.0."""
    if _is_number(has) and _is_number(value):
        return bool(has == value)
    return type(has) is type(value) and bool(has == value)


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    return "true or false" if isinstance(value, bool) else f"the text {shown(value)}"


def shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f'"{value}"' if isinstance(value, str) else str(value)
