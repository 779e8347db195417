"""What a job runs: arguments, environment and limits, checked before the start. Pure.

The rules for the environment are those of Buildbot's protocol (`shell`, argument `env`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Optional, Union

from hostler_agent import machine
from hostler_agent.jobs.errors import PlanRefused

INSTANCE_VARIABLE = "HOSTLER_INSTANCE"
COMMAND_VARIABLE = "HOSTLER_COMMAND"
"""The variable that is set for every job, so that a sweep finds its processes by
/proc/PID/environ."""

# Linux refuses a longer string (MAX_ARG_STRLEN) with a bare E2BIG that names nothing (E13).
MAX_STRING_BYTES = 128 * 1024
MAX_TOTAL_BYTES = 1024 * 1024
MAX_VARIABLES = 4096

_SUBSTITUTION = re.compile(r"\$\{([0-9a-zA-Z_]*)\}")

EnvironmentValue = Union[str, Sequence[str], None]


@dataclass(frozen=True)
class JobLimits:
    """Limits that end a job: in seconds and lines; None or 0 means no limit."""

    timeout_s: Optional[float] = None
    """Seconds without output."""
    max_time_s: Optional[float] = None
    max_lines: Optional[int] = None
    sigterm_time_s: Optional[float] = None
    """Seconds between SIGTERM and the kill; None kills at once."""


@dataclass(frozen=True)
class Resources:
    """Limits for all processes of a job together; None means no limit."""

    memory_bytes: Optional[int] = None
    processes: Optional[int] = None
    cpu_percent: Optional[int] = None
    """Percentage of all the machine's processors: 1 to 100."""

    @property
    def are_limited(self) -> bool:
        return (self.memory_bytes, self.processes, self.cpu_percent) != (None, None, None)

    def bounded(self, processes: int) -> Resources:
        """The same limits, but with `processes` as the limit of processes if there is none."""
        return self if self.processes is not None else replace(self, processes=processes)


@dataclass(frozen=True)
class BuildUser:
    """A user for the jobs of one slot: neither the agent's own nor root.

    `groups` are the ids of its supplementary groups.
    """

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


class Bind(NamedTuple):
    """A file or directory that a job sees in the place of another one. Both must exist."""

    source: str
    target: str
    read_only: bool


@dataclass(frozen=True)
class View:
    """What a job sees of the machine's files that others do not, or do not see as it does. Linux
    only, where the agent may make mount namespaces; elsewhere the job's process says what is
    missing.
    """

    private_tmp: bool = False
    """The directories for temporary files are empty ones of the job's own, in memory, and gone with
    it. One that is to last over several jobs is a bind, which is mounted above these."""
    binds: tuple[Bind, ...] = ()
    hide_proc: bool = False
    """/proc shows the processes of other users as absent."""
    cgroup_read_only: bool = False
    namespaces: tuple[int, ...] = ()
    """Open namespaces, by the agent's descriptors, that the job enters before all else."""


@dataclass(frozen=True)
class JobPlan:
    """The description of a job to start. `argv` and `environment` are passed to exec.

    `is_shell`: `argv` is a shell, its options and a string, which determines the quoting on
    Windows. `allow_batch`: `argv` may name a batch file there. `user`: run as this user, on Linux;
    None is the agent's own. `no_new_privileges`: no program that the job starts gains any, as by
    set-user-ID.
    """

    command_id: str
    argv: tuple[str, ...]
    workdir: str
    environment: Mapping[str, str]
    limits: JobLimits = field(default_factory=JobLimits)
    use_pty: bool = False
    stdin: Optional[bytes] = None
    resources: Resources = field(default_factory=Resources)
    is_shell: bool = False
    allow_batch: bool = False
    user: Optional[BuildUser] = None
    view: View = field(default_factory=View)
    no_new_privileges: bool = False


def command_argv(command: str | Sequence[str]) -> tuple[str, ...]:
    """The argument vector of a command: a string is given to a shell, a list is run as it is."""
    if isinstance(command, str):
        return (*machine.shell(), command)
    return tuple(command)


def job_environment(
    base: Mapping[str, str], changes: Mapping[str, EnvironmentValue], markers: Mapping[str, str]
) -> dict[str, str]:
    """The worker's environment with a command's changes; `markers` win over both.

    None removes a variable, a list is joined with the platform's path separator, PYTHONPATH is put
    before the worker's own, and `${NAME}` stands for the worker's NAME (empty when it has none).
    """
    environment = dict(base)
    for name, value in changes.items():
        if value is None:
            environment.pop(name, None)
            continue
        text = value if isinstance(value, str) else os.pathsep.join(value)
        if name == "PYTHONPATH":
            text += os.pathsep + "${PYTHONPATH}"
        environment[name] = _SUBSTITUTION.sub(
            lambda match: base.get(machine.variable_name(match.group(1)), ""), text
        )
    environment.update(markers)
    return environment


def check(plan: JobPlan) -> None:
    """Raise PlanRefused for arguments or variables that no exec accepts; the text names them and
    their size (E13).
    """
    if not _surely_fits(plan):
        _check_each(plan)


def _surely_fits(plan: JobPlan) -> bool:
    """Whether the plan is certainly within the limits, by a quick estimate that suffices for most
    commands: a character takes at most four bytes, so below a quarter of the limit nothing needs to
    be counted.
    """
    names = plan.environment.keys()
    parts = (*plan.argv, *names, *plan.environment.values(), plan.workdir)
    joined = "\0".join(parts)
    return (
        len(joined) * 4 <= MAX_STRING_BYTES
        and len(names) <= MAX_VARIABLES
        and joined.count("\0") == len(parts) - 1
        and bool(plan.argv and plan.argv[0])
        and all(names)
        and "=" not in "".join(names)
        and _can_be_encoded(joined)
    )


def _can_be_encoded(text: str) -> bool:
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True


def _check_each(plan: JobPlan) -> None:
    if not plan.argv or not plan.argv[0]:
        raise PlanRefused("the command is empty")
    total = 0
    for index, argument in enumerate(plan.argv):
        total += _checked_size(f"argument {index}", argument)
    if len(plan.environment) > MAX_VARIABLES:
        raise PlanRefused(
            f"the environment has {len(plan.environment)} variables, at most {MAX_VARIABLES} fit"
        )
    for name, value in plan.environment.items():
        if not name or "=" in name:
            raise PlanRefused(f"{name!r} is no name for an environment variable")
        total += _checked_size(f"environment variable {name!r}", f"{name}={value}")
    if total > MAX_TOTAL_BYTES:
        raise PlanRefused(
            f"arguments and environment have {total} bytes together, at most {MAX_TOTAL_BYTES} fit"
        )
    if "\0" in plan.workdir:
        raise PlanRefused("the workdir contains a NUL character")


def _checked_size(what: str, text: str) -> int:
    if "\0" in text:
        raise PlanRefused(f"{what} contains a NUL character")
    try:
        size_bytes = len(os.fsencode(text)) + 1
    except UnicodeEncodeError as error:
        raise PlanRefused(f"{what} cannot be encoded: {error.reason}") from error
    if size_bytes > MAX_STRING_BYTES:
        raise PlanRefused(f"{what} has {size_bytes} bytes, at most {MAX_STRING_BYTES} fit")
    return size_bytes
