"""Types of the values that users write: bounded in size, typed strictly.

U4: "yes" is not a number, a file's name holds no escape sequence, and what execve would refuse
(E13) is refused here. The modules beside this one make models of these types.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    SecretStr,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    StringConstraints,
)
from pydantic_core import PydanticCustomError

from hostler_hub.specs import conditions
from hostler_hub.specs.errors import ConditionError
from hostler_hub.specs.isolation import Isolation

# Linux's MAX_ARG_STRLEN and a total that execve takes on every platform we run on (E13).
STRING_SIZE_BYTES = 128 * 1024
TOTAL_SIZE_BYTES = 1024 * 1024
ENTRIES = 4096
OPTIONS_SIZE_BYTES = 64 * 1024
MONTH_S = 31 * 24 * 3600

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_PATH_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_DATE = re.compile(r"\d{4}-\d\d-\d\d[Tt ]")
_NAME = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
_LABEL = r"^[A-Za-z0-9_][A-Za-z0-9_.:/+-]{0,62}$"
# No more than what cannot break a header or pass for an option: mail servers judge the rest.
_MAILBOX = r'[^\x00-\x20\x7f@<>,;:\\"()]'
_ADDRESS = rf"^{_MAILBOX}+@{_MAILBOX}+$"
# What groupadd makes, and the names that directories add to it.
_GROUP = r"^[A-Za-z_][A-Za-z0-9_.-]{0,31}$"
_PROPERTY = r"^[A-Za-z_][A-Za-z0-9_.-]{0,127}$"


def refuse(kind: str, message: str) -> PydanticCustomError:
    return PydanticCustomError(kind, message)


def _printable(text: str) -> str:
    if _CONTROL.search(text):
        raise refuse("control_character", "must hold no control characters")
    return text


def _path_characters(text: str) -> str:
    if _PATH_CONTROL.search(text):
        raise refuse("control_character", "must hold no control characters")
    return text


def _one_line(text: str) -> str:
    if "\n" in text:
        raise refuse("newline", "must be one line")
    return _printable(text)


# A union's own errors name each member that did not fit; one sentence says it better.
def _number(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise refuse("number", "must be a finite number")
    return value


def _iso_8601(value: object) -> object:
    """Refuse a number of seconds, which pydantic would take for an instant."""
    if not isinstance(value, str) or not _DATE.match(value):
        raise refuse("instant", "must be an instant such as 2026-01-02T03:04:05Z")
    return value


def _scalar(value: object) -> object:
    if value is None or isinstance(value, (bool, str)):
        return value
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        raise refuse("scalar", "must be a string, a finite number, true, false or null")
    return value


def _one_or_many(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _command_shape(value: object) -> object:
    strings = isinstance(value, (list, tuple)) and all(isinstance(each, str) for each in value)
    if not strings and not isinstance(value, str):
        raise refuse("command", "must be a list of strings or one string for the shell")
    return value


def _options(options: dict[str, Any]) -> dict[str, Any]:
    try:
        text = json.dumps(options, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, RecursionError):  # NaN, a lone surrogate, nested too deep
        raise refuse("json", "must be plain JSON") from None
    if len(text) > OPTIONS_SIZE_BYTES:
        raise refuse("too_large", f"must be at most {OPTIONS_SIZE_BYTES} bytes of JSON")
    return options


def _exec_string(text: str) -> str:
    if "\x00" in text:
        raise refuse("nul", "must hold no NUL character")
    if len(text.encode()) >= STRING_SIZE_BYTES:  # the kernel counts the closing NUL
        raise refuse("too_long", f"must be shorter than {STRING_SIZE_BYTES} bytes (E13)")
    return text


def _environment(env: dict[str, str | None]) -> dict[str, str | None]:
    for name, value in env.items():
        if not name or "=" in name or "\x00" in name:
            raise refuse("env_name", "names of variables are not empty and hold no = or NUL")
        if len(f"{name}={value or ''}".encode()) >= STRING_SIZE_BYTES:
            raise refuse(
                "too_long",
                f"variable {name[:64]} must be shorter than {STRING_SIZE_BYTES} bytes (E13)",
            )
    return env


def _inside(path: str) -> str:
    if not is_absolute(path) and ".." in re.split(r"[/\\]", path):
        raise refuse("path_traversal", "a relative path must not climb out with ..")
    return path


def _command(command: tuple[str, ...] | str) -> tuple[str, ...] | str:
    if not command or (isinstance(command, tuple) and not command[0]):
        raise refuse("empty_command", "must name a program")
    return command


def _condition(text: str) -> str:
    try:
        conditions.parse(text)
    except ConditionError as error:
        raise refuse("condition", f"is no condition on a fact: {error}") from None
    return text


WorkerName = Annotated[StrictStr, StringConstraints(pattern=_NAME)]
DriverName = Annotated[StrictStr, StringConstraints(pattern=_NAME)]
Label = Annotated[StrictStr, StringConstraints(pattern=_LABEL)]
PropertyName = Annotated[StrictStr, StringConstraints(pattern=_PROPERTY)]
Text = Annotated[
    StrictStr, StringConstraints(min_length=1, max_length=1024), AfterValidator(_printable)
]
Title = Annotated[
    StrictStr, StringConstraints(min_length=1, max_length=200), AfterValidator(_one_line)
]
ExecString = Annotated[StrictStr, AfterValidator(_exec_string)]
PropertyString = Annotated[
    StrictStr, StringConstraints(max_length=65536), AfterValidator(_printable)
]
Number = Annotated[StrictInt | StrictFloat, BeforeValidator(_number)]
Instant = Annotated[AwareDatetime, BeforeValidator(_iso_8601)]
Scalar = Annotated[
    StrictBool | StrictInt | StrictFloat | PropertyString | None, BeforeValidator(_scalar)
]
Options = Annotated[dict[StrictStr, JsonValue], AfterValidator(_options)]
Properties = Annotated[dict[PropertyName, Scalar], Field(max_length=ENTRIES)]
Labels = Annotated[tuple[Label, ...], Field(max_length=64)]
Isolations = Annotated[
    tuple[Isolation, ...], Field(max_length=len(Isolation)), BeforeValidator(_one_or_many)
]
GroupNames = Annotated[
    tuple[Annotated[StrictStr, StringConstraints(pattern=_GROUP)], ...],
    Field(max_length=32),
    BeforeValidator(_one_or_many),
]
Condition = Annotated[
    StrictStr, StringConstraints(max_length=conditions.LONGEST), AfterValidator(_condition)
]
Conditions = Annotated[tuple[Condition, ...], Field(max_length=64)]
Environment = Annotated[
    dict[StrictStr, ExecString | None], Field(max_length=ENTRIES), AfterValidator(_environment)
]
Command = Annotated[
    Annotated[tuple[ExecString, ...], Field(max_length=ENTRIES)] | ExecString,
    BeforeValidator(_command_shape),
    AfterValidator(_command),
]
# On the worker: absolute, or beneath the build's own workspace.
WorkerPath = Annotated[
    StrictStr,
    StringConstraints(min_length=1, max_length=1024),
    AfterValidator(_path_characters),
    AfterValidator(_inside),
]
Seconds = Annotated[Number, Field(ge=0, le=MONTH_S)]
PositiveSeconds = Annotated[Number, Field(gt=0, le=MONTH_S)]
# Below a second an agent would be asked whether it lives before it could answer.
Interval = Annotated[Number, Field(ge=1, le=MONTH_S)]
Address = Annotated[StrictStr, StringConstraints(max_length=254, pattern=_ADDRESS)]
Addresses = Annotated[tuple[Address, ...], Field(max_length=64), BeforeValidator(_one_or_many)]
Password = Annotated[SecretStr, Field(strict=True, min_length=1, max_length=1024)]


def is_absolute(path: str) -> bool:
    r"""Whether the path is absolute on any system: /x, \\x, C:x."""
    return path.startswith(("/", "\\")) or path[1:2] == ":"


# What all specifications are: unknown keys are errors, values never change.
STRICT = ConfigDict(extra="forbid", frozen=True, serialize_by_alias=True)


def exec_size_bytes(argv: Sequence[str], env: Mapping[str, str | None]) -> int:
    """The size of what execve copies: every string with its closing NUL."""
    strings = len(argv) + len(env)
    arguments = sum(len(each.encode()) for each in argv)
    variables = sum(len(name.encode()) + 1 + len((env[name] or "").encode()) for name in env)
    return arguments + variables + strings
