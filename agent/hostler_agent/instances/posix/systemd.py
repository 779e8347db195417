"""An agent as a transient unit, where there is a systemd that keeps it after the login ends.

A user's own manager ends with the last login unless the user lingers, and would take the agent
with it; without lingering a process of its own session is the better choice. As a unit the agent
gets a control group delegated to it, so that also without root its jobs are contained in groups.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

assert sys.platform != "win32"

RUNNING = Path("/run/systemd/system")
LINGER = Path("/var/lib/systemd/linger")
RUN_USER = Path("/run/user")
DEADLINE_S = 15.0

_PROPERTIES = (
    "Type=exec",
    "Delegate=yes",
    "KillMode=mixed",
    "TimeoutStopSec=20",
    "CollectMode=inactive-or-failed",
)


@dataclass(frozen=True)
class Launch:
    """An agent's command line, its unit's name, and where it runs."""

    name: str
    argv: Sequence[str]
    directory: Path
    log: Path
    environment: Mapping[str, str]


def start(launch: Launch) -> Optional[int]:
    """Start an agent in a unit of its own. Returns its pid, or None if no unit can be had."""
    scope = _scope()
    if scope is None:
        return None
    command = ["systemd-run", *scope, "--quiet", f"--unit={launch.name}"]
    for each in (*_PROPERTIES, *_output(launch), f"WorkingDirectory={launch.directory}"):
        command += ["-p", each]
    for name, value in launch.environment.items():
        command += ["-E", f"{name}={value}"]
    if _run([*command, "--", *launch.argv]) is None:
        return None
    shown = _run(["systemctl", *scope, "show", "--property=MainPID", launch.name]) or ""
    pid = shown.strip().partition("=")[2]
    return int(pid) if pid.isdigit() and pid != "0" else None


def _output(launch: Launch) -> list[str]:
    return [f"{stream}=append:{launch.log}" for stream in ("StandardOutput", "StandardError")]


def _scope() -> Optional[list[str]]:
    """The option of the manager to use; None if there is none that would keep the agent."""
    if not RUNNING.is_dir() or shutil.which("systemd-run") is None:
        return None
    if os.geteuid() == 0:
        return ["--system"]
    user = pwd.getpwuid(os.geteuid()).pw_name
    has_manager = (RUN_USER / str(os.geteuid()) / "systemd" / "private").exists()
    return ["--user"] if has_manager and (LINGER / user).exists() else None


def _run(command: Sequence[str]) -> Optional[str]:
    """Run a command and return its output, or None if it fails."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", str(RUN_USER / str(os.geteuid())))
    try:
        done = subprocess.run(
            command,
            env={**os.environ, "XDG_RUNTIME_DIR": runtime},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=DEADLINE_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None
