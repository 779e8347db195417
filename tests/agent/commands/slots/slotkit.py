"""Programs that run as the jobs of a slot do."""

from __future__ import annotations

import os
import subprocess
from typing import Any

from hostler_agent.commands.slots.posix import UserSlot
from hostler_agent.jobs.posix import libc

UIDS = (61056, 61071)
"""Not those of agents that other tests run meanwhile."""


def start_in(slot: UserSlot, *argv: str, **options: Any) -> subprocess.Popen[str]:
    """Start a program as the jobs of the slot run."""

    def become() -> None:
        for descriptor in slot.namespaces.descriptors:
            libc.set_namespace(descriptor)
        os.setgroups((slot.user.gid, *slot.user.groups))
        os.setresgid(*(slot.user.gid,) * 3)
        os.setresuid(*(slot.user.uid,) * 3)
        os.chdir(slot.user.home)

    return subprocess.Popen(
        argv,
        env={**slot.environment(dict(os.environ)), "PATH": "/usr/bin:/bin"},
        preexec_fn=become,  # noqa: PLW1509 - of system calls alone
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


def run_in(slot: UserSlot, script: str) -> str:
    """The output of a shell script that runs as the jobs of the slot do."""
    return start_in(slot, "/bin/sh", "-c", script).communicate(timeout=60)[0]
