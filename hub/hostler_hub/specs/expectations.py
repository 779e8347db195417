"""What a worker's owner expects of the machine that its agent runs on, and how a machine differs.
Pure.

Declared in the worker's definition, and compared by the gate before anybody gets a slot. Only facts
that the machine reports count: what the definition sets as properties is no evidence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
)
from pydantic import StringConstraints as Constraints

from hostler_hub.specs import conditions, version_range
from hostler_hub.specs.errors import ConditionError
from hostler_hub.specs.fields import MONTH_S, STRICT, Conditions, Number, refuse

TOOLS = 32
_TOOL = r"^[A-Za-z0-9_][A-Za-z0-9_.+-]{0,63}$"


def _text(value: object) -> object:
    if not isinstance(value, str):  # YAML reads 3.9 as a number, and 3.10 as the same as 3.1
        raise refuse("versions", 'must be a text in quotes, such as ">=3.9"')
    return value


def _range(text: str) -> str:
    try:
        version_range.parse(text)
    except ConditionError as error:
        raise refuse("versions", f"is no range of versions: {error}") from None
    return text


ToolName = Annotated[StrictStr, Constraints(pattern=_TOOL)]
VersionRange = Annotated[
    StrictStr, Constraints(max_length=256), AfterValidator(_range), BeforeValidator(_text)
]


class Expectations(BaseModel):
    """The most that the clock may differ from the hub's, the least free disk, tools, and facts.

    `tools` are names of executables with ranges of versions, "*" for any. `long_paths`: paths of
    more than 260 characters work, which Windows must be configured for and others always have.
    """

    model_config = STRICT

    clock_skew_s: Annotated[Number, Field(ge=0, le=MONTH_S)] | None = None
    disk_free_mb: Annotated[StrictInt, Field(ge=1, le=2**40)] | None = None
    long_paths: StrictBool = False
    tools: Annotated[dict[ToolName, VersionRange], Field(max_length=TOOLS)] = {}
    facts: Conditions = ()

    @property
    def any(self) -> bool:
        return self != Expectations()


@dataclass(frozen=True, slots=True)
class Tool:
    """What an agent found of a tool: its path, its version, or the problem that kept it from
    finding out.
    """

    path: str | None = None
    version: str | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Findings:
    """What an agent reported. ``clock_skew_s`` and ``tools`` are None if it cannot report them;
    ``agent`` is its name and version.
    """

    facts: Mapping[str, Any]
    agent: str
    clock_skew_s: float | None = None
    tools: Mapping[str, Tool] | None = None


@dataclass(frozen=True, slots=True)
class Difference:
    """One expectation that the machine does not meet."""

    what: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.what}: expected {self.expected} → found {self.found}"


@dataclass(frozen=True, slots=True)
class MachineCheck:
    """One comparison, when it was made and with what."""

    at: float
    expects: Expectations
    differences: tuple[Difference, ...]
    findings: Findings | None = field(default=None, compare=False)

    @property
    def met(self) -> bool:
        return not self.differences

    @property
    def summary(self) -> str:
        """For people: the reason of a quarantine."""
        if self.met:
            return "it is as expected"
        return "not as expected: " + "; ".join(map(str, self.differences))


def differences(expects: Expectations, found: Findings) -> tuple[Difference, ...]:
    """The expectations that the machine does not meet, or that could not be checked."""
    return (
        *_clock(expects, found),
        *_facts(expects, found),
        *_tools(expects, found),
    )


def _clock(expects: Expectations, found: Findings) -> Iterator[Difference]:
    limit, skew = expects.clock_skew_s, found.clock_skew_s
    if limit is None or (skew is not None and abs(skew) <= limit):
        return
    text = _untold(found)
    if skew is not None:
        text = f"{abs(skew):.1f} s {'ahead' if skew > 0 else 'behind'}"
    yield Difference("clock", f"at most {limit:g} s from the hub's", text)


def _facts(expects: Expectations, found: Findings) -> Iterator[Difference]:
    for what, text, expected in _conditions(expects):
        condition = conditions.parse(text)
        if condition.refusal(found.facts) is None:
            continue
        has = _untold(found)
        if condition.fact in found.facts:
            has = conditions.shown(found.facts[condition.fact])
        yield Difference(what, expected or str(condition).removeprefix(f"{what} "), has)


def _conditions(expects: Expectations) -> Iterator[tuple[str, str, str]]:
    """(what people call it, the condition, what it means where that is plainer)"""
    if expects.disk_free_mb is not None:
        at_least = f"at least {expects.disk_free_mb} MB"
        yield "free disk", f"disk_free_mb >= {expects.disk_free_mb}", at_least
    if expects.long_paths:
        yield "long paths", "long_paths == true", "true"
    for text in expects.facts:
        yield conditions.parse(text).fact, text, ""


def _tools(expects: Expectations, found: Findings) -> Iterator[Difference]:
    for name, text in expects.tools.items():
        wanted = version_range.parse(text)
        if found.tools is None:
            yield Difference(name, str(wanted), _untold(found))
            continue
        tool = found.tools.get(name, Tool())
        if tool.path is None or not wanted.holds(tool.version):
            yield Difference(name, str(wanted), _tool(tool))


def _tool(tool: Tool) -> str:
    if tool.path is None:
        return "none on the agent's PATH"
    return f"{tool.version or tool.problem or 'no version in what it says'} ({tool.path})"


def _untold(found: Findings) -> str:
    return f"nothing: {found.agent} does not tell"
