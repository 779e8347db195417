"""Instances as version 0002 of the database's version of the hub started them on POSIX machines.

Everything here is written out: file names, contents, command lines, marks and handles. None of it
comes from the packages, so that it stays what it was however they change. The program that runs is
today's agent.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import psutil
import pytest

NOWHERE = "ws://127.0.0.1:9/api/v1/agents/connect"
TOKEN = "a-token-of-no-use"
WORKER, EPOCH = "w-1", 3
OLD_DIGEST = "b" * 64
"""Of an agent that this hub does not have; it lies on the machine unpacked."""

_NONE: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Instance:
    """`process` is its agent; `directory` its own."""

    hub: str
    instance: str
    directory: Path
    process: subprocess.Popen[bytes]

    def local_handle(self, **changes: Any) -> dict[str, Any]:
        """As driver `local` stored it: the start is in seconds since the epoch."""
        started = psutil.Process(self.process.pid).create_time()
        known = {"version": 1, "pid": self.process.pid, "started": started, "boot": boot_id()}
        return {**known, **changes}

    def host_process(self) -> dict[str, Any]:
        """As `process.json` and the handles of driver `ssh` have it: the start is in ticks."""
        after_name = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2]
        started = int(after_name.split()[19])
        return {"pid": self.process.pid, "started": started, "boot": boot_id()}

    def kill(self) -> None:
        """Without a chance to clear up."""
        self.process.kill()
        self.process.wait(60)

    def ended(self) -> bool:
        """Whether it does, soon."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(60)
        return self.process.returncode is not None


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@contextlib.contextmanager
def started_locally(
    directory: Path, hub: str, instance: str, config: Mapping[str, Any] = _NONE
) -> Iterator[Instance]:
    """By driver `local`, whose own directory this is; `config` changes the agent's."""
    own = directory / WORKER / instance
    (own / "work").mkdir(parents=True, mode=0o700)
    told = {
        "hub": NOWHERE,
        "name": WORKER,
        "instance": instance,
        "epoch": EPOCH,
        "workdir": str(own / "work"),
        "token_file": str(own / "token"),
        "containment": "auto",
        **config,
    }
    _write(own / "token", TOKEN)
    _write(own / "agent.json", json.dumps(told))
    argv = [sys.executable, "-m", "hostler_agent", "run"]
    argv += ["--config", str(own / "agent.json"), "--mark", f"{hub}:{instance}:{EPOCH}"]
    with _running(argv, own, {}) as process:
        yield Instance(hub, instance, own, process)


@contextlib.contextmanager
def started_on_host(
    root: Path, hub: str, instance: str, config: Mapping[str, Any] = _NONE
) -> Iterator[Instance]:
    """By the agent's `host` verb, with `root` as option `directory`; the agent is in
    `agents/OLD_DIGEST`."""
    own, program = root / "instances" / instance, root / "agents" / OLD_DIGEST
    for path in (root / "instances", own, own / "work"):
        path.mkdir(mode=0o700, exist_ok=True)
    _write(root / "instances" / f"{instance}.lock", "")
    about = {"hub": hub, "epoch": EPOCH, "worker": WORKER}
    about |= {"program": str(program), "created_at": time.time()}
    told = {
        "hub": NOWHERE,
        "name": WORKER,
        "instance": instance,
        "epoch": EPOCH,
        "containment": "auto",
        **config,
        "workdir": "work",
        "token_file": "token",
    }
    _write(own / "mark.json", json.dumps(about))
    _write(own / "token", TOKEN)
    _write(own / "agent.json", json.dumps(told))
    argv = [sys.executable, "-I", "-S", str(program), "run"]
    argv += ["--config", str(own / "agent.json"), "--mark", f"{hub}:{instance}:{EPOCH}"]
    with _running(argv, own, {"FLAVOUR": "plain"}) as process:
        made = Instance(hub, instance, own, process)
        _write(own / "process.json", json.dumps(made.host_process()))
        yield made


@contextlib.contextmanager
def left_by_a_job(instance: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process of a job whose agent is dead; its environment has the mark."""
    marks = {"HOSTLER_INSTANCE": instance, "HOSTLER_COMMAND": "1"}
    process = subprocess.Popen(
        ["sleep", "1000"], env={**os.environ, **marks}, start_new_session=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait(60)


@contextlib.contextmanager
def left_in_a_job(instance: str) -> Iterator[subprocess.Popen[bytes]]:
    """One that only its control groups tell of: `hostler/INSTANCE/COMMAND` beneath the agent's own.

    Skips the test where we may make none.
    """
    groups = [home / "hostler" / instance / "1" for home in _own_cgroups()]
    process = subprocess.Popen(["sleep", "1000"], env={}, start_new_session=True)
    try:
        for group in groups:
            group.mkdir(parents=True)
            (group / "cgroup.procs").write_text(str(process.pid))
        yield process
    finally:
        process.kill()
        process.wait(60)
        for group in groups:
            for each in (group, group.parent):
                if each.exists():
                    each.rmdir()


def _own_cgroups() -> list[Path]:
    """In each hierarchy that kept jobs together: version 2, or pids and freezer of version 1."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    found = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        for _, point, kind, options, *_ in mounts:
            is_version_2 = number == "0" and kind == "cgroup2"
            is_it = kind == "cgroup" and controllers in options.split(",")
            if is_version_2 or (is_it and controllers in ("pids", "freezer")):
                found.append(Path(point + path))
                break
    if not found or not all(os.access(each / "cgroup.procs", os.W_OK) for each in found):
        pytest.skip("there is no control group that we may use")
    return found


@contextlib.contextmanager
def _running(
    argv: list[str], directory: Path, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    names = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TZ", "TMPDIR")
    inherited = {name: os.environ[name] for name in names if name in os.environ}
    with (directory / "agent.log").open("ab") as log:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=directory,
            env={**inherited, **environment},
            start_new_session=True,
        )
    try:
        while process.poll() is None and not Path(f"/proc/{process.pid}/cmdline").read_bytes():
            time.sleep(0.0002)  # exec lets us go on a little before the kernel has the arguments
        yield process
    finally:
        process.kill()
        process.wait(60)


def _write(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)
