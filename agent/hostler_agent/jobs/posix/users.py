"""The users that builds run as, where the agent may change user.

They are numbers: user `hostler-bN` is the N-th of a range of uids that belongs to nobody, and a
machine needs no entry for it. Where it has one, that entry's ids are used.

Several agents may run on one machine. Each holds a lock for every user that it uses, which ends
with the agent however that ends, so no user is two agents' at once.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import grp
import os
import pwd
import sys
import threading
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

assert sys.platform != "win32"

from hostler_agent.errors import ConfigurationError
from hostler_agent.jobs.errors import NoUserFree, UsersUnavailable
from hostler_agent.jobs.plan import BuildUser
from hostler_agent.jobs.posix import libc, procfs

NAME = "hostler-b{}"
LOCKS = Path("/run/hostler-agent")
UID_MAP = Path("/proc/self/uid_map")

_NEEDED = {
    "CAP_CHOWN": libc.CAP_CHOWN,
    "CAP_DAC_OVERRIDE": libc.CAP_DAC_OVERRIDE,
    "CAP_FOWNER": libc.CAP_FOWNER,
    "CAP_KILL": libc.CAP_KILL,
    "CAP_SETGID": libc.CAP_SETGID,
    "CAP_SETUID": libc.CAP_SETUID,
}


@dataclass(frozen=True)
class _Held:
    """A user that this agent holds, and the descriptor that is its lock."""

    user: BuildUser
    lock: int


class UserPool:
    """The users that this agent may give to its slots. For use in threads."""

    def __init__(self, uids: tuple[int, int], group_names: Collection[str]) -> None:
        """`uids`: the first and the last one. Raises UsersUnavailable or ConfigurationError."""
        _check_rights(uids)
        self._first, last = uids
        self._count = last - self._first + 1
        self._groups = _group_ids(group_names)
        self._held: dict[int, _Held] = {}
        self._mutex = threading.Lock()
        _make_lock_directory()

    def acquire(self) -> BuildUser:
        """Take a user that nobody has, and of whom no process runs. Raises NoUserFree."""
        with self._mutex:
            for number in range(self._count):
                user = None if number in self._held else self._user(number)
                lock = None if user is None else _lock(user.uid)
                if user is None or lock is None:
                    continue
                # A process of it is what a dead agent left and its spawner is about to kill, or
                # a stranger's: neither is ours.
                if procfs.processes_of(user.uid):
                    os.close(lock)
                    continue
                self._held[number] = _Held(user, lock)
                return user
        raise NoUserFree(
            f"no user is free for another build: of {NAME.format(0)} to "
            f"{NAME.format(self._count - 1)} {len(self._held)} are in use here, and the others "
            "by other agents or by processes that are not theirs"
        )

    def release(self, user: BuildUser) -> None:
        """Give a user back of whom nothing remains."""
        with self._mutex:
            for number, held in list(self._held.items()):
                if held.user.uid == user.uid:
                    del self._held[number]
                    os.close(held.lock)

    def close(self) -> None:
        """Give all users back."""
        with self._mutex:
            while self._held:
                os.close(self._held.popitem()[1].lock)

    def _user(self, number: int) -> Optional[BuildUser]:
        """The user of that number; None if its uid or gid is somebody else's."""
        name = NAME.format(number)
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            if entry.pw_uid in (0, os.geteuid()):
                return None
            return BuildUser(name, entry.pw_uid, entry.pw_gid, self._groups, entry.pw_dir)
        uid = self._first + number
        with contextlib.suppress(KeyError):
            pwd.getpwuid(uid)
            return None
        with contextlib.suppress(KeyError):
            if grp.getgrgid(uid).gr_name != name:
                return None
        return BuildUser(name, uid, uid, self._groups, "/")


def _check_rights(uids: tuple[int, int]) -> None:
    if os.geteuid() != 0:
        raise UsersUnavailable("the agent is not root")
    if not libc.can_set_groups():
        raise UsersUnavailable("threads cannot change their groups on this processor")
    capabilities = libc.effective_capabilities()
    missing = [name for name, number in _NEEDED.items() if not capabilities >> number & 1]
    if missing:
        raise UsersUnavailable(f"the agent lacks {', '.join(missing)}")
    first, last = uids
    for line in UID_MAP.read_text().splitlines():
        inside, _outside, count = map(int, line.split())
        if inside <= first and last < inside + count:
            return
    raise UsersUnavailable(f"this user namespace has no uids {first} to {last}")


def _group_ids(names: Collection[str]) -> tuple[int, ...]:
    found = []
    for name in names:
        try:
            found.append(grp.getgrnam(name).gr_gid)
        except KeyError:  # noqa: PERF203 - each is looked for
            raise ConfigurationError(f"option 'build_groups': there is no group {name!r}") from None
    return tuple(found)


def _make_lock_directory() -> None:
    try:
        LOCKS.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = LOCKS.lstat()
    except OSError as error:
        raise UsersUnavailable(f"{LOCKS}: {error.strerror}") from error
    if found.st_uid != 0 or found.st_mode & 0o077:
        raise UsersUnavailable(f"{LOCKS} is not root's alone")


def _lock(uid: int) -> Optional[int]:
    """Lock the uid. Returns the descriptor that holds the lock, or None if another agent does."""
    descriptor = os.open(
        LOCKS / f"uid-{uid}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
    )
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno == errno.EWOULDBLOCK:
            return None
        raise
    return descriptor
