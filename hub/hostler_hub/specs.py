"""What people hand to the hub: worker definitions and build specifications.

The border of faults 3.2: whatever passes here is bounded in size and typed strictly, so that
"yes" is no number and an unknown key is an error, not a silence. Values that only another part can
judge (a driver's options, whether any worker fits) are judged there.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
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
    model_validator,
)
from pydantic_core import PydanticCustomError

# Linux's MAX_ARG_STRLEN and a total that execve takes on every platform we run on (E13).
STRING_SIZE_BYTES = 128 * 1024
TOTAL_SIZE_BYTES = 1024 * 1024
ENTRIES = 4096
STEPS = 256
OPTIONS_SIZE_BYTES = 64 * 1024
MONTH_S = 31 * 24 * 3600

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_NAME = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
_LABEL = r"^[A-Za-z0-9_][A-Za-z0-9_.:/+-]{0,62}$"
_PROPERTY = r"^[A-Za-z_][A-Za-z0-9_.-]{0,127}$"


def _refuse(kind: str, message: str) -> PydanticCustomError:
    return PydanticCustomError(kind, message)


def _printable(text: str) -> str:
    if _CONTROL.search(text):
        raise _refuse("control_character", "must hold no control characters")
    return text


def _one_line(text: str) -> str:
    if "\n" in text:
        raise _refuse("newline", "must be one line")
    return _printable(text)


# A union's own errors name each member that did not fit; one sentence says it better.
def _number(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise _refuse("number", "must be a finite number")
    return value


def _scalar(value: object) -> object:
    if value is None or isinstance(value, (bool, str)):
        return value
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        raise _refuse("scalar", "must be a string, a finite number, true, false or null")
    return value


def _command_shape(value: object) -> object:
    strings = isinstance(value, (list, tuple)) and all(isinstance(each, str) for each in value)
    if not strings and not isinstance(value, str):
        raise _refuse("command", "must be a list of strings or one string for the shell")
    return value


def _options(options: dict[str, Any]) -> dict[str, Any]:
    try:
        text = json.dumps(options, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, RecursionError):  # NaN, a lone surrogate, nested too deep
        raise _refuse("json", "must be plain JSON") from None
    if len(text) > OPTIONS_SIZE_BYTES:
        raise _refuse("too_large", f"must be at most {OPTIONS_SIZE_BYTES} bytes of JSON")
    return options


def _exec_string(text: str) -> str:
    if "\x00" in text:
        raise _refuse("nul", "must hold no NUL character")
    if len(text.encode()) >= STRING_SIZE_BYTES:  # the kernel counts the closing NUL
        raise _refuse("too_long", f"must be shorter than {STRING_SIZE_BYTES} bytes (E13)")
    return text


def _environment(env: dict[str, str | None]) -> dict[str, str | None]:
    for name, value in env.items():
        if not name or "=" in name or "\x00" in name:
            raise _refuse("env_name", "names of variables are not empty and hold no = or NUL")
        if len(f"{name}={value or ''}".encode()) >= STRING_SIZE_BYTES:
            raise _refuse(
                "too_long",
                f"variable {name[:64]} must be shorter than {STRING_SIZE_BYTES} bytes (E13)",
            )
    return env


def _workdir(path: str) -> str:
    absolute = path.startswith(("/", "\\")) or path[1:2] == ":"
    if not absolute and ".." in re.split(r"[/\\]", path):
        raise _refuse("path_traversal", "a relative path must not climb out with ..")
    return path


def _command(command: tuple[str, ...] | str) -> tuple[str, ...] | str:
    if not command or (isinstance(command, tuple) and not command[0]):
        raise _refuse("empty_command", "must name a program")
    return command


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
Scalar = Annotated[
    StrictBool | StrictInt | StrictFloat | PropertyString | None, BeforeValidator(_scalar)
]
Options = Annotated[dict[StrictStr, JsonValue], AfterValidator(_options)]
Properties = Annotated[dict[PropertyName, Scalar], Field(max_length=ENTRIES)]
Labels = Annotated[tuple[Label, ...], Field(max_length=64)]
Environment = Annotated[
    dict[StrictStr, ExecString | None], Field(max_length=ENTRIES), AfterValidator(_environment)
]
Command = Annotated[
    Annotated[tuple[ExecString, ...], Field(max_length=ENTRIES)] | ExecString,
    BeforeValidator(_command_shape),
    AfterValidator(_command),
]
Workdir = Annotated[
    StrictStr,
    StringConstraints(min_length=1, max_length=1024),
    AfterValidator(_printable),
    AfterValidator(_workdir),
]
Seconds = Annotated[Number, Field(ge=0, le=MONTH_S)]
PositiveSeconds = Annotated[Number, Field(gt=0, le=MONTH_S)]
Password = Annotated[SecretStr, Field(strict=True, min_length=1, max_length=1024)]


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class WorkerDefinition(_Spec):
    """One worker as its owner defines it. Buildbot's own names where it has them, in seconds.

    `build_wait_timeout`: idle time until the instance is stopped; 0 at once, below 0 only when the
    hub stops. `password` is write-only and belongs to workers that run without the hub's doing;
    null keeps the one that is stored.
    """

    name: WorkerName
    driver: DriverName
    driver_options: Options = {}
    properties: Properties = {}
    labels: Labels = ()
    max_builds: Annotated[StrictInt, Field(ge=1, le=256)] = 1
    build_wait_timeout: Annotated[Number, Field(ge=-MONTH_S, le=MONTH_S)] = 600
    missing_timeout: PositiveSeconds = 120
    check_instance_interval: PositiveSeconds = 10
    password: Password | None = None
    description: Text | None = None

    def public(self) -> dict[str, Any]:
        """The definition as JSON-able data, without the password."""
        return self.model_dump(mode="json", exclude={"password"})


class Requirements(_Spec):
    """What a build asks of its worker; every condition must hold, none means any worker."""

    worker: WorkerName | None = None
    driver: DriverName | None = None
    labels: Labels = ()
    properties: Properties = {}


class Retry(_Spec):
    """How often a build that lost its worker is run again: twice makes three attempts; 0 never."""

    on_loss: Annotated[StrictInt, Field(ge=0, le=100)] = 2


class StepSpec(_Spec):
    """One command of a build: an argv, or a string for the worker's own shell.

    `workdir` is relative to the build's workspace, or absolute. `timeout_s` counts the time without
    output, `max_time_s` all of it; null is no limit. In `env` null removes a variable.
    """

    name: Title
    command: Command
    workdir: Workdir | None = None
    env: Environment = {}
    timeout_s: PositiveSeconds | None = 1200
    max_time_s: PositiveSeconds | None = None
    max_lines: Annotated[StrictInt, Field(ge=1, le=2**31 - 1)] | None = None
    sigterm_time_s: Seconds | None = 10
    halt_on_failure: StrictBool = True
    always_run: StrictBool = False


class BuildSpec(_Spec):
    """A build as it is submitted: steps in order, what it requires, and how patient it is."""

    name: Title | None = None
    requires: Requirements = Requirements()
    env: Environment = {}
    properties: Properties = {}
    priority: Annotated[StrictInt, Field(ge=-1_000_000, le=1_000_000)] = 0
    steps: Annotated[tuple[StepSpec, ...], Field(min_length=1, max_length=STEPS)]
    timeout_s: PositiveSeconds | None = None
    retry: Retry = Retry()

    @model_validator(mode="after")
    def _fits_one_exec(self) -> Self:
        for index, step in enumerate(self.steps):
            argv = (step.command,) if isinstance(step.command, str) else step.command
            env = {**self.env, **step.env}
            if len(env) > ENTRIES:
                raise _refuse("too_many", f"step {index}: more than {ENTRIES} variables (E13)")
            if exec_size_bytes(argv, env) > TOTAL_SIZE_BYTES:
                raise _refuse(
                    "too_large",
                    f"step {index}: arguments and environment together are larger than "
                    f"{TOTAL_SIZE_BYTES} bytes (E13)",
                )
        return self


def exec_size_bytes(argv: Sequence[str], env: Mapping[str, str | None]) -> int:
    """What execve copies for them: every string with its closing NUL."""
    strings = len(argv) + len(env)
    arguments = sum(len(each.encode()) for each in argv)
    variables = sum(len(name.encode()) + 1 + len((env[name] or "").encode()) for name in env)
    return arguments + variables + strings
