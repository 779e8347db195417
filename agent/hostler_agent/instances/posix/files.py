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

_NETWORK = {
    *(
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "afs",
        "ceph",
        "glusterfs",
        "lustre",
        "gpfs",
        "beegfs",
    ),
    *("9p", "virtiofs", "fuse", "fuseblk", "vboxsf"),
}
"""The types of file systems that several machines may share, or that number files as they like."""


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


def machine_id() -> str:
    """The machine's id, which a system gets when it is installed; empty if it has none."""
    with suppress(OSError):
        return Path("/etc/machine-id").read_text("ascii", "replace").strip()
    return ""


def is_on_network(path: Path) -> bool:
    """Whether the path is on a file system that other machines may share, by the kernel's list of
    mounts.
    """
    where, kind = str(path.resolve()), ""
    longest = -1
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/self/mountinfo").read_text("utf-8", "replace").splitlines():
            about, _, source = line.partition(" - ")
            point = about.split(" ")[4].replace("\\040", " ")
            is_below = point in ("/", where) or where.startswith(point + "/")
            if is_below and len(point) >= longest:
                longest, kind = len(point), source.split(" ")[0]
    return kind.partition(".")[0] in _NETWORK


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
