"""Private directories, files and locks on Windows; the same functions as `posix.files`.

What has just ended may hold its files for a moment longer, and a virus scanner any file: what
cannot be renamed or removed is tried again for some seconds (E18).
"""

from __future__ import annotations

import msvcrt
import os
import shutil
import stat
import sys
import time
from pathlib import Path
from typing import Any, Callable, Optional

assert sys.platform == "win32"

from hostler_agent.instances.errors import NOT_PERMITTED, HostError
from hostler_agent.win32 import security

PATIENCE_S = 5.0
_PAUSE_S = 0.05
_LOCKED_BYTE = 1 << 30
"""Far behind the content, which others may then read: Windows' locks keep readers out as well."""


def make_private(path: Path) -> None:
    """Make sure that the directory is there, and open to its owner, the system and administrators
    alone. Raises OSError, HostError."""
    try:
        security.make_private(path)
    except security.NotPrivate as error:
        raise HostError(NOT_PERMITTED, str(error)) from error


def open_own(path: Path) -> int:
    """A descriptor to read a file. Raises OSError."""
    return os.open(path, os.O_RDONLY | os.O_BINARY | os.O_NOINHERIT)


def open_lock(path: Path) -> int:
    """A descriptor of a file that may be locked. Raises OSError."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_BINARY | os.O_NOINHERIT)


def take(number: int) -> bool:
    """Try to take the lock, until its descriptor is closed. Returns whether it was free."""
    os.lseek(number, _LOCKED_BYTE, os.SEEK_SET)
    try:
        msvcrt.locking(number, msvcrt.LK_NBLCK, 1)
    except OSError:
        return False
    return True


def write_at_start(number: int, content: bytes) -> None:
    os.lseek(number, 0, os.SEEK_SET)
    os.write(number, content)


def rename(source: Path, target: Path) -> None:
    """Raises OSError."""
    _persist(lambda: source.rename(target))


def remove_tree(path: Path) -> Optional[str]:
    """Remove a directory, also what a build has made read-only. Returns why something is left."""
    longest = f"\\\\?\\{path}"  # builds nest deeper than other paths may be
    try:
        _persist(lambda: shutil.rmtree(longest, onerror=_unlock))
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    return None


def _persist(act: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            act()
            return
        except FileNotFoundError:
            raise
        except OSError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(_PAUSE_S)


def _unlock(function: Callable[..., Any], path: str, error: Any) -> None:
    """Read-only is an attribute here, which keeps files from being removed."""
    if not isinstance(error[1], PermissionError):
        raise error[1]
    os.chmod(path, stat.S_IWRITE)  # noqa: PTH101 - it is text with a prefix
    function(path)
