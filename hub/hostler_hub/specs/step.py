"""A step of a build as it is submitted: a command, or one of the other kinds.

Each kind is a key of the step, and a step has exactly one of them. Paths on the worker are relative
to the build's workspace, or absolute. `builds.step_kinds` carries out each kind.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    SerializerFunctionWrapHandler,
    StrictBool,
    StrictInt,
    StrictStr,
    StringConstraints,
    model_serializer,
    model_validator,
)

from hostler_hub.specs import artifact_path
from hostler_hub.specs.fields import (
    STRICT,
    Command,
    Environment,
    PositiveSeconds,
    PropertyName,
    Seconds,
    Title,
    WorkerPath,
    refuse,
)
from hostler_hub.specs.secret_ref import SecretRefs

FILE_SIZE_BYTES = 1024**3
PATHS = 1024
PROPERTY_SIZE = 65536


def _artifact_name(name: str) -> str:
    try:
        artifact_path.parts_of(name)
    except ValueError as error:
        raise refuse("artifact_name", str(error)) from None
    return name


def _encodable(text: str) -> str:
    text.encode()  # a lone surrogate is a ValueError, which is what pydantic wants
    return text


ArtifactName = Annotated[
    StrictStr, StringConstraints(min_length=1, max_length=1024), AfterValidator(_artifact_name)
]
Paths = Annotated[tuple[WorkerPath, ...], Field(min_length=1, max_length=PATHS)]
Sha256 = Annotated[StrictStr, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
# Always a string: YAML reads 0644 as the number 420.
FileMode = Annotated[StrictStr, StringConstraints(pattern=r"^0?[0-7]{3,4}$")]
LogName = Annotated[StrictStr, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$")]
FileText = Annotated[StrictStr, AfterValidator(_encodable)]

# Streams of the same log that are not files.
RESERVED_LOGS = frozenset({"stdout", "stderr", "header"})


class _Spec(BaseModel):
    model_config = STRICT


class LogFile(_Spec):
    """A file that the command writes beside its output; ``follow`` skips what it held before."""

    filename: WorkerPath
    follow: StrictBool = False


class Copy(_Spec):
    """A file or directory of the worker, copied to a path where nothing is yet."""

    from_: Annotated[WorkerPath, Field(alias="from")]
    to: WorkerPath


class _Uploaded(_Spec):
    from_: Annotated[WorkerPath, Field(alias="from")]
    name: ArtifactName | None = None

    @property
    def artifact(self) -> str:
        """The artifact's name."""
        return self.name or re.split(r"[/\\]", self.from_.rstrip("/\\"))[-1]

    @model_validator(mode="after")
    def _has_a_name(self) -> Self:
        try:
            artifact_path.parts_of(self.artifact)
        except ValueError:
            raise refuse("name", "needs a name, as its path ends in none") from None
        return self


class Upload(_Uploaded):
    """A file of the worker that becomes an artifact, by default under its own name."""

    keep_stamp: StrictBool = False
    max_size_bytes: Annotated[StrictInt, Field(ge=0, le=FILE_SIZE_BYTES)] = FILE_SIZE_BYTES


class UploadDirectory(_Uploaded):
    """A directory of the worker whose files become artifacts beneath ``name``."""

    compress: Literal["gz", "bz2"] | None = None


class UploadGlob(_Spec):
    """Files and directories of the worker that match a shell's pattern (``**`` for any depth).

    They are named from the pattern's first part with a wildcard on, beneath ``name``.
    """

    pattern: WorkerPath
    name: ArtifactName | None = None


class Download(_Spec):
    """A file for the worker: its text, or the sha256 of a file that was stored before."""

    to: WorkerPath
    content: FileText | None = None
    file: Sha256 | None = None
    mode: FileMode | None = None

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        if (self.content is None) == (self.file is None):
            raise refuse("source", "must have exactly one of content, file")
        return self


class SetProperty(_Spec):
    """A command whose standard output becomes properties of the build.

    All of it the property ``name``, or with ``lines`` each line NAME=VALUE one. ``strip`` takes
    the space around each value away.
    """

    command: Command
    name: PropertyName | None = None
    lines: StrictBool = False
    strip: StrictBool = True

    @model_validator(mode="after")
    def _has_one_name(self) -> Self:
        if (self.name is None) != self.lines:
            raise refuse("name", "must have exactly one of name, lines: true")
        return self


KINDS = (
    "command",
    "mkdir",
    "rmdir",
    "copy",
    "remove",
    "stat",
    "glob",
    "listdir",
    "upload",
    "upload_directory",
    "upload_glob",
    "download",
    "set_property",
)
_FIELDS = {"copy": "copy_"}  # pydantic's models have a method of that name
_OF_COMMANDS = (
    "workdir",
    "env",
    "secrets",
    "max_lines",
    "sigterm_time_s",
    "use_pty",
    "initial_stdin",
    "logfiles",
    "log_environment",
    "limits",
    "batch_files",
)


class StepSpec(_Spec):
    """One step of a build. ``command`` is an argv, or a string for the worker's own shell.

    ``workdir`` is relative to the build's workspace, or absolute. ``timeout_s`` counts the time
    without output (of a transfer: without progress), ``max_time_s`` all of it; null is no limit.
    In ``env`` null removes a variable; ``secrets`` are variables by reference. ``logfiles`` are
    relative to ``workdir``. ``limits`` win over the build's; ``batch_files`` lets a list name a
    .bat or .cmd on Windows.
    """

    name: Title
    command: Command | None = None
    mkdir: Paths | None = None
    rmdir: Paths | None = None
    copy_: Annotated[Copy | None, Field(alias="copy")] = None
    remove: WorkerPath | None = None
    stat: WorkerPath | None = None
    glob: WorkerPath | None = None
    listdir: WorkerPath | None = None
    upload: Upload | None = None
    upload_directory: UploadDirectory | None = None
    upload_glob: UploadGlob | None = None
    download: Download | None = None
    set_property: SetProperty | None = None

    workdir: WorkerPath | None = None
    env: Environment = {}
    secrets: SecretRefs = {}
    timeout_s: PositiveSeconds | None = 1200
    max_time_s: PositiveSeconds | None = None
    max_lines: Annotated[StrictInt, Field(ge=1, le=2**31 - 1)] | None = None
    sigterm_time_s: Seconds | None = 10
    use_pty: StrictBool = False
    initial_stdin: FileText | None = None
    logfiles: Annotated[dict[LogName, LogFile], Field(max_length=64)] = {}
    log_environment: StrictBool = False
    limits: Limits | None = None
    batch_files: StrictBool = False
    halt_on_failure: StrictBool = True
    always_run: StrictBool = False

    @property
    def kind(self) -> str:
        """The step's kind, one of KINDS."""
        if self.command is not None:
            return "command"
        return next(kind for kind in KINDS if self.detail(kind) is not None)

    def detail(self, kind: str) -> Any:
        """The value of the key ``kind``; None for every kind but the step's own."""
        return getattr(self, _FIELDS.get(kind, kind))

    @property
    def argv(self) -> Sequence[str]:
        """The command to execute, if the step has one; a string for a shell is one argument."""
        command = self.set_property.command if self.set_property else self.command
        return (command,) if isinstance(command, str) else command or ()

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> Self:
        found = [kind for kind in KINDS if self.detail(kind) is not None]
        if len(found) != 1:
            raise refuse("kind", f"must have exactly one of {', '.join(KINDS)}")
        if found[0] not in {"command", "set_property"}:
            for option in _OF_COMMANDS:
                if getattr(self, option) != type(self).model_fields[option].default:
                    raise refuse("option", f"{option} is for steps with a command")
        if taken := RESERVED_LOGS & self.logfiles.keys():
            raise refuse("log_name", f"logfiles: {min(taken)} is the name of a stream already")
        return self

    @model_serializer(mode="wrap")
    def _without_other_kinds(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        kind = self.kind
        others = {*KINDS} - {kind}
        if kind not in {"command", "set_property"}:
            others |= {*_OF_COMMANDS}
        return {key: value for key, value in handler(self).items() if key not in others}


# A program needs some memory before its own first instruction, and the agent's spawner is in the
# job's cgroup for a moment: less than this would end jobs by chance.
MEMORY_MB = 16


MOST_MEMORY_MB = 2**24


class Limits(BaseModel):
    """Limits of all processes of a command together; null sets no limit.

    ``memory_mb`` is in MiB, ``cpu_percent`` of all the worker's processors. An agent that cannot
    enforce a limit does not start the command.
    """

    model_config = STRICT

    memory_mb: Annotated[StrictInt, Field(ge=MEMORY_MB, le=MOST_MEMORY_MB)] | None = None
    processes: Annotated[StrictInt, Field(ge=1, le=1_000_000)] | None = None
    cpu_percent: Annotated[StrictInt, Field(ge=1, le=100)] | None = None

    @property
    def words(self) -> str:
        """The names of the limits that are set, separated by commas."""
        return ", ".join(name for name, value in self if value is not None)


def effective(build: Limits | None, step: Limits | None) -> Limits | None:
    """The limits of a step: its own win over the build's. None if nothing is limited."""
    merged: dict[str, int] = {}
    for limits in (build, step):
        merged |= {name: value for name, value in limits or () if value is not None}
    return Limits.model_validate(merged) if merged else None
