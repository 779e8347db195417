"""The functions of `machine` on Windows."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import ctypes
import errno
import msvcrt
import ntpath
import os
import secrets
import signal
import subprocess
import sys
import winreg
from ctypes import wintypes
from pathlib import Path
from typing import Callable, Optional

assert sys.platform == "win32"

from hostler_agent.machine.console import ConsoleDecoder
from hostler_agent.win32 import api
from hostler_agent.win32.api import KERNEL32, function

HAS_TERMINALS = hasattr(KERNEL32, "CreatePseudoConsole")
"""Whether there are pseudo consoles: on Windows 10, version 1809, and later."""

READ_FLAGS = os.O_RDONLY | os.O_BINARY | os.O_NOINHERIT
"""Flags to open a file for reading."""

CREATE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_BINARY | os.O_NOINHERIT

PRIVACY_HINT = (
    "let only its owner read it: icacls FILE /inheritance:r /grant:r *S-1-3-4:F "
    "*S-1-5-18:F *S-1-5-32-544:F"
)
"""How to give access to the owner, the system and its administrators only."""

_BOOT_KEY = r"Software\Hostler\Boot"
_FILE_SYSTEM_KEY = r"SYSTEM\CurrentControlSet\Control\FileSystem"
_VOLATILE = 1
_ALL_ACCESS = 0x000F003F


class _MemoryStatus(ctypes.Structure):
    """MEMORYSTATUSEX"""

    _fields_ = (
        ("dwLength", wintypes.DWORD),
        ("dwMemoryLoad", wintypes.DWORD),
        ("ullTotalPhys", ctypes.c_uint64),
        ("others", ctypes.c_uint64 * 6),
    )


_ADVAPI32 = ctypes.WinDLL("advapi32", use_last_error=True)
_memory_status = function(
    KERNEL32, "GlobalMemoryStatusEx", wintypes.BOOL, ctypes.POINTER(_MemoryStatus)
)
_oem_code_page = function(KERNEL32, "GetOEMCP", wintypes.UINT)
_create_key = function(
    _ADVAPI32,
    "RegCreateKeyExW",
    wintypes.DWORD,
    ctypes.c_void_p,
    wintypes.LPCWSTR,
    wintypes.DWORD,
    wintypes.LPCWSTR,
    wintypes.DWORD,
    wintypes.DWORD,
    ctypes.c_void_p,
    ctypes.POINTER(ctypes.c_void_p),
    ctypes.c_void_p,
)


def name() -> tuple[str, str]:
    """The host name and the processor's architecture."""
    return os.environ.get("COMPUTERNAME", ""), os.environ.get("PROCESSOR_ARCHITECTURE", "")


def cpu_count() -> int:
    """How many CPUs this process may use; at least 1."""
    return os.cpu_count() or 1


def memory_mb() -> Optional[int]:
    """The machine's memory in MiB."""
    status = _MemoryStatus(ctypes.sizeof(_MemoryStatus))
    _memory_status(ctypes.byref(status))
    return int(status.ullTotalPhys // 2**20)


def boot_id() -> Optional[str]:
    """An id that changes with each restart.

    Windows has none, and its boot time moves when the clock is set. So it is a random number in a
    registry key that Windows forgets when it stops.
    """
    key = ctypes.c_void_p()
    error = _create_key(
        winreg.HKEY_CURRENT_USER,
        _BOOT_KEY,
        0,
        None,
        _VOLATILE,
        _ALL_ACCESS,
        None,
        ctypes.byref(key),
        None,
    )
    if error:
        return None
    # Only opened, if it was there already.
    with winreg.OpenKey(winreg.HKEY_CURRENT_USER, _BOOT_KEY, 0, winreg.KEY_ALL_ACCESS) as opened:
        winreg.CloseKey(key.value or 0)
        with contextlib.suppress(FileNotFoundError):
            return str(winreg.QueryValueEx(opened, "id")[0])
        fresh = secrets.token_hex(16)
        winreg.SetValueEx(opened, "id", 0, winreg.REG_SZ, fresh)
        return fresh


def os_release() -> dict[str, Optional[str]]:
    """The system in the terms of os-release(5)."""
    version = sys.getwindowsversion()
    number = f"{version.major}.{version.minor}.{version.build}"
    return {"id": "windows", "id_like": None, "version_id": number, "version_codename": None}


def forbid_inspection() -> bool:
    """Forbid other processes of the agent's user to read its memory: Windows cannot do that."""
    return False


def keep_secret(_secret: bytes) -> bool:
    """Hand a secret over for the agent's next process: nothing here would keep it."""
    return False


def kept_secret() -> Optional[bytes]:
    """The secret that the agent's process before this one has handed over: there is none."""
    return None


def has_long_paths() -> Optional[bool]:
    """Whether paths of more than 260 characters work: on Windows 10 and later, if configured. None
    if it cannot be known.

    A program must support them too, as Python does.
    """
    try:
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, _FILE_SYSTEM_KEY) as key:
            return bool(winreg.QueryValueEx(key, "LongPathsEnabled")[0] == 1)
    except FileNotFoundError:
        return False
    except OSError:
        return None


def guard_against_oom() -> None:
    """Do nothing: Windows fails allocations and kills no process."""


def power_off() -> bool:
    """Switch the machine off. Returns False if no way to do it works."""
    try:
        ended = subprocess.run(["shutdown.exe", "/s", "/t", "0", "/f"], check=False)
    except OSError:
        return False
    return ended.returncode == 0


def memory_directories(*, common: bool) -> list[Path]:  # noqa: ARG001
    """Directories of this user that are in memory: Windows has none."""
    return []


def is_own_directory(path: Path) -> bool:
    """Whether the path is a directory, and no link to one."""
    return path.is_dir() and not path.is_symlink()


def give_file(_descriptor: int, _uid: int, _gid: int) -> None:
    """Do nothing: files have the owner that they were created for."""


def shell() -> tuple[str, ...]:
    """The arguments that precede a command that is one string; /s keeps the string's own quotes."""
    default = ntpath.join(os.environ.get("SYSTEMROOT", r"C:\Windows"), "System32", "cmd.exe")
    return (os.environ.get("COMSPEC", default), "/d", "/s", "/c")


def variable_name(given: str) -> str:
    """The name of an environment variable as os.environ has it: Path is PATH here."""
    return given.upper()


def output_decoder() -> codecs.IncrementalDecoder:
    """The decoder for programs' output. Consoles have a code page, but many programs write
    UTF-8.
    """
    return ConsoleDecoder(f"cp{_oem_code_page()}")


def open_log(path: str) -> int:
    """Open a file to read what others write, without keeping them from renaming or removing it.
    Returns its descriptor.

    Follows no link. Raises OSError.
    """
    share = api.SHARE_READ | api.SHARE_WRITE | api.SHARE_DELETE
    flags = api.FILE_FLAG_OPEN_REPARSE_POINT
    handle = api.create_file(path, api.GENERIC_READ, share, flags)
    return msvcrt.open_osfhandle(handle.detach(), os.O_RDONLY | os.O_BINARY | os.O_NOINHERIT)


def make_fifo(path: str, _mode: int) -> None:
    """Raise OSError: on Windows a named pipe is not a file."""
    raise OSError(errno.EINVAL, "Windows has no such files", path)


def keep_owner(_source: str, _target: str) -> None:
    """Do nothing: a copy belongs to whoever made it."""


def stop_signals() -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The signals that ask the agent to finish, and those that demand its end at once."""
    # There is nobody who could send SIGTERM here.
    return (signal.SIGINT, signal.SIGBREAK), ()


def on_signal(loop: asyncio.AbstractEventLoop, number: int, react: Callable[[], None]) -> None:
    """Call `react` in the event loop whenever the signal comes."""
    # Windows' event loops have no add_signal_handler.
    signal.signal(number, lambda *_: loop.call_soon_threadsafe(react))
