"""Private directories, files and locks on POSIX; the same names as `windows_files`."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import Optional

assert sys.platform != "win32"

from hostler_agent.instances.errors import NOT_PERMITTED, HostError


def make_private(path: Path) -> None:
    """Create a directory that only its owner may write, or check an existing one. Raises OSError,
    HostError.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.stat()
    if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise HostError(
            NOT_PERMITTED, f"{path} must belong to the user who logs in, and nobody else may write"
        )


def open_own(path: Path) -> int:
    """Open a regular file for reading; refuse symbolic and hard links. Returns a descriptor. Raises
    OSError.

    Builds run as the same user as agents, and could link the name to a file that must not be
    opened: SQLite loses its locks when its process opens and closes the database once more.
    """
    if path.lstat().st_nlink != 1:
        raise OSError(errno.EMLINK, os.strerror(errno.EMLINK), str(path))
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def open_lock(path: Path) -> int:
    """Open a lock file, created if need be. Returns a descriptor. Raises OSError."""
    with suppress(FileNotFoundError):
        if path.lstat().st_nlink != 1:  # see open_own
            raise OSError(errno.EMLINK, os.strerror(errno.EMLINK), str(path))
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def take(number: int) -> bool:
    """Try to take the lock, which is held until the descriptor is closed. Returns whether it was
    free.
    """
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def write_at_start(number: int, content: bytes) -> None:
    os.pwrite(number, content, 0)


def rename(source: Path, target: Path) -> None:
    """Rename a file or directory. Raises OSError."""
    source.rename(target)


def remove_tree(path: Path) -> Optional[str]:
    """Remove a directory, including what a build made read-only. Returns None, or why something is
    left.
    """
    shutil.rmtree(path, ignore_errors=True)
    if not path.exists():
        return None
    for directory, _, _ in os.walk(path):
        with suppress(OSError):
            Path(directory).chmod(0o700)
    try:
        shutil.rmtree(path)
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    return None
