"""Hostler's extension of Buildbot's protocol. A peer that supports it says so; no peer need.

- The handshake carries, beside Basic credentials, the agent's session secret, instance and epoch.
  The answer 410, or the close code 4410, orders the agent to go away for good.
- get_worker_info's result has `hostler` in `worker_commands` and a map `hostler`: AgentReport.
- set_worker_settings has a map `hostler`: HubSettings.
- `tool_versions` in `worker_commands` is a command of ours: see TOOL_VERSIONS.
- start_command's args have a map `hostler`: CommandTerms. With `raw`, output comes as `output`
  pairs of bytes with offsets (Output), and a `receipt` pair (Receipt) tells what the job left.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Optional

from hostler_agent.wire.credentials import decode_basic, encode_basic
from hostler_agent.wire.errors import CredentialsError
from hostler_agent.wire.fields import (
    BOOLEAN,
    BYTES,
    DURATION,
    INTEGER,
    LENGTH,
    LIST,
    MAP,
    NUMBER,
    POSITIVE,
    TEXT,
    TEXTS,
    Keys,
    nullable,
    optional,
    take,
    take_map,
)
from hostler_agent.wire.record import Record

if TYPE_CHECKING:
    from collections.abc import Mapping

NAME = "hostler"
SECRETS_VERSION = 2
"""The first version whose agents take secrets (CommandTerms.secrets)."""
VERSION = 2
PATH = "/api/v1/agents/connect"

SESSION_HEADER = "Hostler-Session"
INSTANCE_HEADER = "Hostler-Instance"
EPOCH_HEADER = "Hostler-Epoch"

GO_AWAY_STATUS = 410
GO_AWAY_CLOSE_CODE = 4410
LEAVE_CLOSE_CODE = 4411
"""The close code of an agent that leaves for good: its jobs are ended, so the hub need not wait for
it."""

RUNNING = "running"
DONE = "done"

STOPPING = "the agent is stopping and takes no more commands"
"""The refusal of start_command by an agent that is stopping: the hub must give the work
to another."""

LOST = "the command was ended when its lease was over"
"""The refusal of start_command for a command that was killed when its lease expired: its build is
lost."""

ENDING = "the command is still being ended"
"""The refusal of start_command until a forgotten command has ended: the hub must ask again."""

TOOL_VERSIONS = "tool_versions"
"""The name of a command, and of the pair that it answers with. The command's args are `tools`
(names) and `timeout`; the pair is a map by name of `path`, `version` and `problem`, each a text or
null."""

OUTPUT = "output"
RECEIPT = "receipt"

JOB_LOST = "lost"
"""`Receipt.ended` of a job whose end nobody knows, because the process that started it and would
have reaped it was killed: its build is lost."""


@dataclass(frozen=True, eq=False, repr=False)
class Handshake(Record):
    """The peer's identity. `session` is absent from stock peers, `instance` and `epoch` also from
    permanent workers. The password is kept out of repr().
    """

    name: str
    password: str = field(repr=False)
    session: Optional[str] = field(default=None, repr=False)
    instance: Optional[str] = None
    epoch: Optional[int] = None

    def headers(self) -> dict[str, str]:
        """The headers of the opening request; raises CredentialsError."""
        headers = {"Authorization": encode_basic(self.name, self.password)}
        if self.session is not None:
            headers[SESSION_HEADER] = self.session
        if self.instance is not None:
            headers[INSTANCE_HEADER] = self.instance
        if self.epoch is not None:
            headers[EPOCH_HEADER] = str(self.epoch)
        return headers

    @classmethod
    def parse(cls, headers: Mapping[str, str]) -> Handshake:
        """Parse headers in a mapping that ignores case, such as Starlette's. Raises
        CredentialsError.
        """
        authorization = headers.get("Authorization")
        if authorization is None:
            raise CredentialsError("there are no credentials")
        name, password = decode_basic(authorization)
        epoch = headers.get(EPOCH_HEADER)
        # isdecimal() alone takes digits of other scripts, and int() takes any number of them.
        if epoch is not None and not (epoch.isascii() and epoch.isdecimal() and len(epoch) < 19):
            raise CredentialsError(f"{EPOCH_HEADER} is not a number")
        return cls(
            name=name,
            password=password,
            session=headers.get(SESSION_HEADER),
            instance=headers.get(INSTANCE_HEADER),
            epoch=None if epoch is None else int(epoch),
        )


@dataclass(frozen=True, eq=False, repr=False)
class CommandReport(Record):
    """A command that the agent still has. `state` is RUNNING, or DONE if its end is not yet
    acknowledged.
    """

    command_id: str
    state: str


@dataclass(frozen=True, eq=False, repr=False)
class AgentReport(Record):
    """The map `hostler` in the worker's info. `boot_id` changes when the machine restarts (null if
    unknown), `process` when the agent does; `facts` describe the machine. `clock_s` is the
    machine's clock, in seconds since 1970.
    """

    boot_id: Optional[str]
    process: str
    commands: tuple[CommandReport, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    version: int = VERSION
    clock_s: Optional[float] = None

    _keys: ClassVar[Keys] = {
        "version": INTEGER,
        "clock_s": optional(NUMBER),
        "boot_id": nullable(TEXT),
        "process": TEXT,
        "commands": LIST,
        "facts": MAP,
    }

    def body(self) -> dict[str, Any]:
        """The map that goes into the info; `commands` becomes a list of maps."""
        return {**asdict(self), "commands": [asdict(command) for command in self.commands]}

    @classmethod
    def parse(cls, info: Mapping[str, Any]) -> Optional[AgentReport]:
        """The report in a worker's info; None when the worker is a stock one."""
        if NAME not in info:
            return None
        where = f"get_worker_info.{NAME}"
        taken = take_map(where, take("get_worker_info", info, NAME, MAP), cls._keys)
        commands = tuple(_command_report(where, entry) for entry in taken.pop("commands"))
        return cls(commands=commands, **taken)


def _command_report(where: str, entry: Any) -> CommandReport:
    entry = take(where, {"commands": entry}, "commands", MAP)
    return CommandReport(
        **take_map(f"{where}.commands", entry, {"command_id": TEXT, "state": TEXT})
    )


@dataclass(frozen=True, eq=False, repr=False)
class HubSettings(Record):
    """The map `hostler` in the settings: the hub's terms for this connection.

    Commands that are not in `resume` are killed; for those in it, all unacknowledged reports are
    sent again. The agent kills its jobs when it has not heard from the hub for `lease_ttl_s` less a
    margin. `go_away_grace_s` is how long commands may take to end when the agent is told to go
    away. `keepalive_interval_s` is the time between pings, if the hub's owner wants another one
    than the agent's default.
    """

    lease_ttl_s: float
    resume: tuple[str, ...] = ()
    go_away_grace_s: float = 10.0
    instance: Optional[str] = None
    epoch: Optional[int] = None
    keepalive_interval_s: Optional[float] = None

    _keys: ClassVar[Keys] = {
        "lease_ttl_s": DURATION,
        "resume": TEXTS,
        "go_away_grace_s": optional(DURATION),
        "instance": optional(TEXT),
        "epoch": optional(INTEGER),
        "keepalive_interval_s": optional(DURATION),
    }

    def body(self) -> dict[str, Any]:
        return {**asdict(self), "resume": list(self.resume)}

    @classmethod
    def parse(cls, mapping: Mapping[str, Any]) -> HubSettings:
        taken = take_map(f"set_worker_settings.args.{NAME}", mapping, cls._keys)
        if taken["go_away_grace_s"] is None:
            taken["go_away_grace_s"] = cls.go_away_grace_s
        return cls(**{**taken, "resume": tuple(taken["resume"])})


@dataclass(frozen=True, eq=False, repr=False)
class CommandLimits(Record):
    """Limits for all processes of a command together; null is no limit.

    `cpu_percent` is of all the machine's processors. An agent that cannot enforce a limit does not
    start the command.
    """

    memory_bytes: Optional[int] = None
    processes: Optional[int] = None
    cpu_percent: Optional[int] = None

    @classmethod
    def parse(cls, where: str, mapping: Mapping[str, Any]) -> CommandLimits:
        return cls(**take_map(where, mapping, dict.fromkeys(_LIMITS, optional(POSITIVE))))


_LIMITS = ("memory_bytes", "processes", "cpu_percent")


@dataclass(frozen=True, eq=False, repr=False)
class CommandSecret(Record):
    """A secret for a command: the environment variable `name` holds its `value`, or with `is_file`
    the path of a file that does. A `value` of null is for a command that the agent has already.
    """

    name: str
    value: Optional[bytes] = field(repr=False)
    is_file: bool = False

    _keys: ClassVar[Keys] = {"name": TEXT, "value": nullable(BYTES), "is_file": BOOLEAN}

    @classmethod
    def parse(cls, where: str, entry: Any) -> CommandSecret:
        entry = take(where, {"secrets": entry}, "secrets", MAP)
        return cls(**take_map(f"{where}.secrets", entry, cls._keys))


@dataclass(frozen=True, eq=False, repr=False)
class CommandTerms(Record):
    """The map `hostler` in a command's args: the lease it runs under, whether output is raw, its
    limits, whether it may be a Windows batch file, and its secrets.
    """

    lease: str
    epoch: int
    raw: bool = True
    limits: Optional[CommandLimits] = None
    batch_files: bool = False
    secrets: tuple[CommandSecret, ...] = ()

    _keys: ClassVar[Keys] = {
        "lease": TEXT,
        "epoch": INTEGER,
        "raw": BOOLEAN,
        "limits": optional(MAP),
        "batch_files": optional(BOOLEAN),
        "secrets": optional(LIST),
    }

    def body(self) -> dict[str, Any]:
        """The map to send, without the optional terms that are not set."""
        body: dict[str, Any] = {"lease": self.lease, "epoch": self.epoch, "raw": self.raw}
        if self.limits is not None:
            body["limits"] = asdict(self.limits)
        if self.batch_files:
            body["batch_files"] = True
        if self.secrets:
            body["secrets"] = [asdict(secret) for secret in self.secrets]
        return body

    @classmethod
    def parse(cls, args: Mapping[str, Any]) -> Optional[CommandTerms]:
        """The terms in a command's args; None from a stock master."""
        if args.get(NAME) is None:
            return None
        where = f"start_command.args.{NAME}"
        taken = take_map(where, take("start_command.args", args, NAME, MAP), cls._keys)
        if taken["limits"] is not None:
            taken["limits"] = CommandLimits.parse(f"{where}.limits", taken["limits"])
        secrets = tuple(CommandSecret.parse(where, entry) for entry in taken["secrets"] or ())
        return cls(**{**taken, "batch_files": bool(taken["batch_files"]), "secrets": secrets})


@dataclass(frozen=True, eq=False, repr=False)
class Output(Record):
    """Raw output: `data` starts at `offset` bytes of the command's one log, all streams together.

    `stream` is "stdout", "stderr", "header" or the name of a log file.
    """

    stream: str
    offset: int
    data: bytes

    def pair(self) -> list[Any]:
        return [OUTPUT, asdict(self)]

    @classmethod
    def parse(cls, value: Any) -> Output:
        keys = {"stream": TEXT, "offset": LENGTH, "data": BYTES}
        return cls(**take_map("update.output", take("update", {OUTPUT: value}, OUTPUT, MAP), keys))


@dataclass(frozen=True, eq=False, repr=False)
class Survivor(Record):
    """A process that could not be killed."""

    pid: int
    name: str


@dataclass(frozen=True, eq=False, repr=False)
class Receipt(Record):
    """The last report on a job. If `survivors` is empty, none of its processes is alive.

    `oom_kills` counts the processes that the kernel killed because memory ran out. `why` is one
    sentence for people, if `ended` and the exit code do not tell everything. `escaped` are the
    names of processes that had left the job's cgroup, and were killed all the same. `missing` is
    what the machine could not give of the view that the job was to have, each as "PART: why".
    """

    ended: str
    exit_code: Optional[int]
    containment: str
    pids_seen: int = 0
    peak_memory_bytes: Optional[int] = None
    cpu_s: Optional[float] = None
    survivors: tuple[Survivor, ...] = ()
    held_output: tuple[str, ...] = ()
    oom_kills: int = 0
    why: Optional[str] = None
    escaped: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    _keys: ClassVar[Keys] = {
        "ended": TEXT,
        "exit_code": nullable(INTEGER),
        "containment": TEXT,
        "pids_seen": LENGTH,
        "peak_memory_bytes": optional(LENGTH),
        "cpu_s": optional(NUMBER),
        "survivors": LIST,
        "held_output": TEXTS,
        "oom_kills": optional(LENGTH),
        "why": optional(TEXT),
        "escaped": optional(TEXTS),
        "missing": optional(TEXTS),
    }

    def pair(self) -> list[Any]:
        survivors = [asdict(survivor) for survivor in self.survivors]
        names = {key: list(getattr(self, key)) for key in ("held_output", "escaped", "missing")}
        return [RECEIPT, {**asdict(self), "survivors": survivors, **names}]

    @classmethod
    def parse(cls, value: Any) -> Receipt:
        where = "update.receipt"
        taken = take_map(where, take("update", {RECEIPT: value}, RECEIPT, MAP), cls._keys)
        keys = {"pid": INTEGER, "name": TEXT}
        taken["survivors"] = tuple(
            Survivor(**take_map(where, take(where, {"survivors": entry}, "survivors", MAP), keys))
            for entry in taken["survivors"]
        )
        taken["oom_kills"] = taken["oom_kills"] or 0
        for key in ("held_output", "escaped", "missing"):
            taken[key] = tuple(taken[key] or ())
        return cls(**taken)
