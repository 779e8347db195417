"""To whom build directories belong: to a slot's user while it works there, else to the agent."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Optional

assert sys.platform != "win32"

from hostler_agent.jobs.plan import BuildUser

BUILDS = "builds"
_NO_BUILDS = frozenset([".hostler", ".secrets", "homes", "info"])
"""Directories of the agent itself in its base directory."""
_MODE = 0o700
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def build_directory(base: Path, path: str) -> Optional[Path]:
    """The build directory that an absolute path leads into: one in `builds`, as a Hostler hub has
    them, or in the base directory itself, as a stock master has for each builder. None for others.
    """
    whole = os.path.normpath(path)
    if not whole.startswith(f"{base}/"):
        return None
    first, *rest = Path(whole).relative_to(base).parts
    if first == BUILDS:
        return base / first / rest[0] if rest else None
    return None if first in _NO_BUILDS else base / first


def make(directory: Path, user: BuildUser) -> None:
    """Make a directory for a user alone. Raises OSError."""
    directory.mkdir(mode=_MODE)
    os.chown(directory, user.uid, user.gid, follow_symlinks=False)


def claim(directory: Path, user: BuildUser, others: Collection[int], *, make: bool) -> None:
    """Have a build directory belong to the user; `make` it if there is none. Raises OSError, also
    if it belongs to one of the uids `others`.
    """
    # The directory above is the agent's, so nobody puts a link in its place.
    try:
        found = directory.lstat()
    except FileNotFoundError:
        if make:
            directory.mkdir(mode=_MODE)
            os.chown(directory, user.uid, user.gid, follow_symlinks=False)
        return
    if found.st_uid in others:
        raise PermissionError(f"{directory} belongs to another build that runs")
    if found.st_uid != user.uid and stat.S_ISDIR(found.st_mode):
        hand_over(directory, user.uid, user.gid)


def hand_over(directory: Path, uid: int, gid: int) -> None:
    """Give a tree to another owner, for itself alone: a workspace that is kept to the agent, or to
    the next build's user. The former owner must have no process any more. Raises OSError.

    Only what belongs to the former owner changes hands, and of files that are the agent's none that
    has another name somewhere: that may be a file of the machine.
    """
    top = os.open(directory, _DIRECTORY)
    try:
        former = os.fstat(top).st_uid
        for _path, names, files, inner in os.fwalk(".", dir_fd=top, follow_symlinks=False):
            for name in (*names, *files):
                found = os.stat(name, dir_fd=inner, follow_symlinks=False)
                if found.st_uid == former and (former or _is_sole(found)):
                    os.chown(name, uid, gid, dir_fd=inner, follow_symlinks=False)
        os.fchown(top, uid, gid)
        os.fchmod(top, _MODE)
    finally:
        os.close(top)


def _is_sole(found: os.stat_result) -> bool:
    return found.st_nlink == 1 or stat.S_ISDIR(found.st_mode)
