"""Removes what a build leaves on the machine outside of its own directories, by its user.

The work is bounded: of the directories that everybody may write to, only the entries themselves are
looked at, and those of the directories in them that everybody may write to as well.
"""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import sys
import time
from collections.abc import Iterator

assert sys.platform != "win32"

from hostler_agent.commands.progress import Progress
from hostler_agent.commands.removal.posix import remove_entry
from hostler_agent.commands.slots import keyrings, sysv
from hostler_agent.jobs.plan import BuildUser
from hostler_agent.jobs.posix import procfs
from hostler_agent.jobs.receipt import ProcessName

PUBLIC = ("/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue", "/run/lock", "/run/screen")  # noqa: S108
"""Directories in which everybody may leave something."""
SPOOLS = (
    *("/var/spool/cron", "/var/spool/cron/crontabs", "/var/spool/cron/tabs", "/etc/crontabs"),
    *("/var/spool/cron/atjobs", "/var/spool/at", "/var/spool/at/spool", "/var/mail"),
    *("/var/lib/systemd/linger", "/run/user"),
)
"""Directories in which programs keep something for a user: jobs of cron and at, mail, services."""

DEADLINE_S = 10.0
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def clear(user: BuildUser, deadline_s: float = DEADLINE_S) -> list[str]:
    """Remove what is left of the user; for use in a thread. Returns what could not be removed, one
    text for each.
    """
    left = [f"process {one.pid} ({one.name})" for one in _kill(user.uid, deadline_s)]
    progress = Progress(max_time_s=deadline_s)
    for path in PUBLIC:
        left += _clear_directory(path, user, progress, below=True)
    for path in SPOOLS:
        left += _clear_directory(path, user, progress, below=False)
    for found in sysv.objects_of(user.uid):
        try:
            sysv.remove(found)
        except OSError as error:  # noqa: PERF203 - each is a removal of its own
            left.append(f"System V {error.filename}: {error.strerror}")
    if keyrings.has_keys(user.uid) and not keyrings.clear(user):
        left.append("keys in its keyring")
    return left


def _kill(uid: int, deadline_s: float) -> tuple[ProcessName, ...]:
    """Kill all processes of a user. Returns those that survive."""
    deadline = procfs.PollDeadline(deadline_s)
    while True:
        members = procfs.processes_of(uid)
        if not members or deadline.passed:
            return procfs.names(members)
        # Stopped first, so that none forks ahead of the kill.
        for number in (signal.SIGSTOP, signal.SIGKILL):
            procfs.signal_members(lambda: procfs.processes_of(uid), number)
        time.sleep(deadline.next_pause_s())


def _clear_directory(path: str, user: BuildUser, progress: Progress, *, below: bool) -> list[str]:
    try:
        directory = os.open(path, _DIRECTORY)
    except OSError:
        return []  # not on this machine
    try:
        return list(_clear_entries(directory, path, user, progress, below=below))
    finally:
        os.close(directory)


def _clear_entries(
    directory: int, path: str, user: BuildUser, progress: Progress, *, below: bool
) -> Iterator[str]:
    for name in os.listdir(directory):
        progress.step()
        try:
            found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except OSError:
            continue  # gone meanwhile
        where = f"{path}/{name}"
        if found.st_uid == user.uid or name in (user.name, str(user.uid)):
            for failure in remove_entry(directory, name, where, progress):
                yield f"{failure.filename}: {failure.strerror}"
        elif below and stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_IWOTH:
            with contextlib.suppress(OSError):
                inner = os.open(name, _DIRECTORY, dir_fd=directory)
                try:
                    yield from _clear_entries(inner, where, user, progress, below=False)
                finally:
                    os.close(inner)
