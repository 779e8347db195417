"""Private directories, files and locks on Windows; the same functions as `posix.files`.

A process that has just ended may hold its files for a moment longer, and a virus scanner any file:
renaming and removing are therefore repeated for some seconds (E18).
"""

from __future__ import annotations

import msvcrt
import os
import shutil
import stat
import sys
import time
import winreg
from pathlib import Path
from typing import Any, Callable, Optional

assert sys.platform == "win32"

from hostler_agent.instances.errors import NOT_PERMITTED, HostError
from hostler_agent.win32 import api, security

PATIENCE_S = 5.0
_CRYPTOGRAPHY = r"SOFTWARE\Microsoft\Cryptography"
_DRIVE_REMOTE = 4
_PAUSE_S = 0.05
_LOCKED_BYTE = 1 << 30
"""The offset of the locked byte. It lies far behind the content, because locks on Windows keep
others from reading the locked bytes."""


def make_private(path: Path) -> None:
    """Create a directory that only its owner, the system and administrators may use, or check an
    existing one. Raises OSError, HostError.
    """
    try:
        security.make_private(path)
    except security.NotPrivate as error:
        raise HostError(NOT_PERMITTED, str(error)) from error


def open_own(path: Path) -> int:
    """Open a file for reading. Returns a descriptor. Raises OSError."""
    return os.open(path, os.O_RDONLY | os.O_BINARY | os.O_NOINHERIT)


def open_lock(path: Path) -> int:
    """Open a lock file, created if need be. Returns a descriptor. Raises OSError."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_BINARY | os.O_NOINHERIT)


def machine_id() -> str:
    """The machine's id, which Windows gets when it is installed; empty if it has none."""
    access = winreg.KEY_READ | winreg.KEY_WOW64_64KEY
    try:
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, _CRYPTOGRAPHY, 0, access) as key:
            return str(winreg.QueryValueEx(key, "MachineGuid")[0])
    except OSError:
        return ""


def is_on_network(path: Path) -> bool:
    """Whether the path is on a drive or share of another machine."""
    return bool(api.KERNEL32.GetDriveTypeW(path.anchor) == _DRIVE_REMOTE)


def take(number: int) -> bool:
    """Try to take the lock, which is held until the descriptor is closed. Returns whether it was
    free.
    """
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
    """Rename a file or directory; repeated for PATIENCE_S. Raises OSError."""
    _persist(lambda: source.rename(target))


def remove_tree(path: Path) -> Optional[str]:
    """Remove a directory, including what a build made read-only. Returns None, or why something is
    left.
    """
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
    """Error handler of rmtree: clear the read-only attribute, which keeps a file from being
    removed, and repeat.
    """
    if not isinstance(error[1], PermissionError):
        raise error[1]
    os.chmod(path, stat.S_IWRITE)  # noqa: PTH101 - it is text with a prefix
    function(path)
