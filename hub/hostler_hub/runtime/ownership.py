"""Whose the hub's files are: what others own or may write, they can change under the hub.

A state directory may have been made before the hub's first start, by an administrator with a loose
umask or by somebody who wants to plant a database, a secret or a link. So what belongs to another
user is refused, with the words of what to do, and what is the hub's own loses others' rights. A
directory comes before its content: once it is private, nobody else can change what is in it.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

from hostler_hub.errors import SettingsError
from hostler_hub.runtime.errors import NotOurs

_OTHERS = 0o077
# Below the state directory itself, passing through a directory without listing it does no harm:
# users that builds run as may have to.
_LISTERS = 0o066
# They may hold a directory for each build, and no name in them is known beforehand.
_NOT_LOOKED_INTO = frozenset({"artifacts", "files"})
# Containers' users go through it to the agents' socket; the state directory keeps others out.
_OPEN_TO_ALL = frozenset({"agents"})


def take_state_dir(state_dir: Path) -> None:
    """Make the state directory, and what is in it, the hub's alone. Raises SettingsError, OSError.

    Links are followed once they are found to be the hub's own: an operator may keep the database or
    the log elsewhere. What workers write below must be a directory, though (U2).
    """
    _take(state_dir, _OTHERS)
    for path in _entries(state_dir):
        if path.name in _NOT_LOOKED_INTO and path.is_symlink():
            raise SettingsError(
                f"{path} is a link and must be a directory: mount the other disk there, or"
                " bind-mount its directory"
            )
        with contextlib.suppress(FileNotFoundError):  # a hub that runs has removed it
            _take(path, 0 if path.name in _OPEN_TO_ALL else _LISTERS)


def check_secret(path: Path, descriptor: int) -> None:
    """Check an open file with a secret or a key, which others than the hub may manage: it must be
    the hub's own or root's, and not for everybody to write. If it is the hub's own, others lose
    their rights. Raises NotOurs, OSError.
    """
    found = os.fstat(descriptor)
    if found.st_uid == os.geteuid():
        if found.st_mode & _OTHERS:
            os.fchmod(descriptor, stat.S_IMODE(found.st_mode) & ~_OTHERS)
    elif found.st_uid != 0:
        raise NotOurs(_refusal(path, found.st_uid))
    elif found.st_mode & stat.S_IWOTH:
        raise NotOurs(f"{path} can be written by everybody: chmod o-w {path}")


def _entries(directory: Path) -> Iterator[Path]:
    """What is in the directory, and what is in its directories."""
    for entry in sorted(directory.iterdir()):
        yield entry
        if entry.is_dir() and not entry.is_symlink() and entry.name not in _NOT_LOOKED_INTO:
            with contextlib.suppress(FileNotFoundError):
                yield from sorted(entry.iterdir())


def _take(path: Path, of_directories: int) -> None:
    """Check that a file or directory is the hub's, and take others' rights: of a directory those in
    ``of_directories``, of a file all.
    """
    for found in (path.lstat(), path.stat() if path.exists() else path.lstat()):
        if found.st_uid != os.geteuid():
            raise NotOurs(_refusal(path, found.st_uid))
    loose = _OTHERS if stat.S_ISREG(found.st_mode) else 0
    if stat.S_ISDIR(found.st_mode):
        loose = of_directories
    if found.st_mode & loose:
        path.chmod(stat.S_IMODE(found.st_mode) & ~loose)


def _refusal(path: Path, owner: int) -> str:
    hub = _name(os.geteuid())
    return (
        f"{path} belongs to {_name(owner)}, and the hub runs as {hub}: remove it, or, if you trust"
        f" its content, chown it to {hub}"
    )


def _name(uid: int) -> str:
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"
