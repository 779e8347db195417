"""Agents as processes of this machine: started in sessions of their own, and identified by pid,
start time and boot."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

assert sys.platform != "win32"

from hostler_agent.instances.directories import Directories, read_json
from hostler_agent.instances.errors import NOT_PERMITTED, SURVIVES, HostError, of_system
from hostler_agent.instances.launch import DETACHED, LOG, RECORD, Ending, Program, Start
from hostler_agent.instances.mark import OPTION, Mark
from hostler_agent.instances.posix import systemd
from hostler_agent.jobs.posix import procfs
from hostler_agent.jobs.posix.procfs import PollDeadline
from hostler_agent.private_files import write_private

BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")

_INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TZ", "TMPDIR")
"""The variables of the login's environment that an agent gets; its jobs inherit them."""

SWEEP_DEADLINE_S = 30.0


@dataclass(frozen=True)
class Identity:
    """A process, identified by pid, start time (clock ticks since boot) and boot id: no other
    process ever has the same three.
    """

    pid: int
    started: int
    boot: str

    @classmethod
    def parse(cls, record: Mapping[str, Any]) -> Optional[Identity]:
        """Read what `record` has written. Returns None for anything else."""
        pid, started, boot = (record.get(key) for key in ("pid", "started", "boot"))
        if isinstance(pid, int) and isinstance(started, int) and isinstance(boot, str):
            return cls(pid, started, boot)
        return None

    def record(self) -> dict[str, Any]:
        """The process as a JSON object: pid, start time, boot id."""
        return {"pid": self.pid, "started": self.started, "boot": self.boot}

    def lives(self) -> bool:
        """Whether the process runs: not as a zombie, and not another one of the same pid."""
        found = procfs.stat(self.pid)
        return (
            found is not None
            and found.started == self.started
            and found.state not in "ZX"
            and boot_id() == self.boot
        )

    def send(self, number: int) -> None:
        """Send a signal to this process and never to another one of the same pid (E6)."""
        with contextlib.suppress(ProcessLookupError):
            try:
                descriptor = os.pidfd_open(self.pid)
            except OSError as error:
                if error.errno != errno.ENOSYS:
                    raise
                if self.lives():  # a kernel before 5.3 has nothing better
                    os.kill(self.pid, number)
                return
            try:
                if self.lives():
                    signal.pidfd_send_signal(descriptor, number)
            finally:
                os.close(descriptor)


def boot_id() -> str:
    """The id of the machine's present boot; empty if the system does not tell."""
    try:
        return BOOT_ID_FILE.read_text("ascii").strip()
    except OSError:
        return ""


def identify(pid: int) -> Optional[Identity]:
    """The identity of a running process. Returns None if there is none of that pid."""
    found = procfs.stat(pid)
    if found is None or found.state in "ZX":
        return None
    return Identity(pid, found.started, boot_id())


def find(directories: Directories, hub: str, instance: str) -> Optional[Identity]:
    """The instance's running agent: the recorded process, or else one that carries its mark."""
    recorded = Identity.parse(read_json(directories.instance(instance) / RECORD))
    if recorded is not None and recorded.lives():
        return recorded
    found = of_instance(hub, instance)
    return found[0] if found else None


def marked(directories: Directories, hub: str) -> Iterator[tuple[Mark, Identity]]:
    """Every agent on this machine that carries the hub's mark, of any user."""
    del directories  # also those whose directory is another's
    yield from _marked(hub)


def registered(_directories: Directories, _hub: str) -> tuple[Mark, ...]:
    """The marks for which a start is set up: none here, because a systemd unit ends with
    its agent.
    """
    return ()


def _marked(hub: str) -> Iterator[tuple[Mark, Identity]]:
    wanted = os.fsencode(f"\0{OPTION}\0{hub}:")
    for pid in procfs.all_pids():
        try:
            with open(f"/proc/{pid}/cmdline", "rb", buffering=0) as file:
                arguments = file.read()
        except OSError:
            continue
        if wanted in arguments:
            mark = Mark.of_arguments(os.fsdecode(arguments).split("\0"))
            identity = identify(pid)
            if mark is not None and identity is not None:
                yield mark, identity


def of_instance(hub: str, instance: str) -> list[Identity]:
    """The running agents of one instance: one at most, if nothing went wrong."""
    return [identity for mark, identity in _marked(hub) if mark.instance == instance]


def start(wanted: Start) -> Identity:
    """Start an agent that outlives the caller, and write its record. Raises OSError.

    Without a unit the agent is the caller's child: a caller that lives on must reap it.
    """
    config = str(wanted.directory / "agent.json")
    argv = [*wanted.program.argv, "run", "--config", config, *wanted.mark.arguments()]
    launch = systemd.Launch(
        name=f"hostler-{wanted.mark.instance.lower()}",
        argv=argv,
        directory=wanted.directory,
        log=wanted.directory / LOG,
        environment={**_inherited(), **wanted.environment},
    )
    unit = None if wanted.way == DETACHED else systemd.start(launch)
    pid = unit or _detach(launch)
    identity = identify(pid)
    if identity is None:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        raise ChildProcessError(0, "it ended at once", str(launch.log))
    write_private(wanted.directory / RECORD, json.dumps(identity.record()), sync=False)
    return identity


def end_instance(directories: Directories, mark: Mark, ending: Ending) -> None:
    """End an instance's agent and all that its jobs have started. Raises HostError."""
    del directories  # wherever it has its directory
    agents = of_instance(mark.hub, mark.instance)
    _may_signal(agents)
    left, clean = end(agents, ending.grace_s)
    if left:
        pids = ", ".join(str(each.pid) for each in left)
        raise HostError(SURVIVES, f"agent {pids} survives SIGKILL")
    if not (agents and clean):  # an agent that ends by itself takes its jobs with it
        _sweep(mark.instance, ending.program, ending.containment)


def evidence() -> dict[str, str]:
    """The machine's processes, as text."""
    found = procfs.all_processes()
    lines = (f"{each.pid} {each.parent} {each.state} {each.name}" for each in found)
    return {"processes": "\n".join(("pid parent state name", *lines))}


def uses(directories: Directories, program: Path) -> bool:
    """Whether a running process has `program` among its arguments."""
    del directories
    wanted = os.fsencode(str(program))
    for pid in procfs.all_pids():
        with contextlib.suppress(OSError):
            if wanted in Path(f"/proc/{pid}/cmdline").read_bytes():
                return True
    return False


def end(agents: Sequence[Identity], grace_s: float) -> tuple[list[Identity], bool]:
    """Send SIGQUIT (kill the jobs, then exit), and SIGKILL to those that do not exit in time.

    Returns the agents that survive both, and whether all exited by themselves.
    """
    for agent in agents:
        agent.send(signal.SIGQUIT)
    stubborn = await_end(agents, grace_s)
    for agent in stubborn:
        agent.send(signal.SIGKILL)
    return await_end(stubborn, grace_s), not stubborn


def await_end(agents: Sequence[Identity], deadline_s: float) -> list[Identity]:
    """Wait until the agents have exited. Returns those that have not by the deadline."""
    deadline = PollDeadline(deadline_s)
    alive = [agent for agent in agents if agent.lives()]
    while alive and not deadline.passed:
        time.sleep(deadline.next_pause_s())
        alive = [agent for agent in alive if agent.lives()]
    return alive


def _detach(launch: systemd.Launch) -> int:
    """Start an agent in a session of its own that holds nothing of the caller's open."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(launch.log, flags, 0o600), "ab") as log:
        process = subprocess.Popen(
            launch.argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=launch.directory,
            env=dict(launch.environment),
            start_new_session=True,
        )
    # The kernel lets us go on some microseconds before /proc has the arguments, and whoever looks
    # for the mark in between would take the agent for not started.
    cmdline = Path(f"/proc/{process.pid}/cmdline")
    with contextlib.suppress(OSError):
        while process.poll() is None and not cmdline.read_bytes():
            time.sleep(0.0002)
    # Popen must not wait for it: the caller of `start` reaps it, or init does when we have ended.
    process.returncode = 0 if process.returncode is None else process.returncode
    return process.pid


def _may_signal(agents: list[Identity]) -> None:
    for agent in agents:
        try:
            owner = Path(f"/proc/{agent.pid}").stat().st_uid
        except OSError:
            continue
        if os.geteuid() not in (0, owner):
            raise HostError(NOT_PERMITTED, f"agent {agent.pid} runs as another user (uid {owner})")


def _inherited() -> dict[str, str]:
    return {name: os.environ[name] for name in _INHERITED if name in os.environ}


def _sweep(instance: str, program: Program, containment: str) -> None:
    """Run the agent's verb `sweep`, which clears what a killed agent's jobs have left."""
    argv = [*program.argv, "sweep", "--name", instance, "--containment", containment]
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=_inherited(),
            timeout=SWEEP_DEADLINE_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise HostError(SURVIVES, "the sweep did not end in time") from error
    except OSError as error:
        raise of_system(error, "start the sweep") from error
    if done.returncode != 0:
        raise HostError(SURVIVES, done.stderr.decode("utf-8", "replace").strip()[-500:])
