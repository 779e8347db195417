"""Access rights of files and other objects of Windows, written in SDDL. Loads on Windows only."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from ctypes import wintypes
from pathlib import Path

assert sys.platform == "win32"

from hostler_agent.win32.api import (
    GENERIC_READ,
    GENERIC_WRITE,
    KERNEL32,
    SHARE_READ,
    Handle,
    SecurityAttributes,
    function,
    made,
)

OWNER_ONLY = "D:P(A;OICI;FA;;;OW)(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)"
"""SDDL: access for the owner, the system and its administrators; inherits nothing from the parent
directory."""
OBJECT_OWNER_ONLY = "D:(A;;GA;;;OW)(A;;GA;;;SY)(A;;GA;;;BA)"
"""SDDL: the same access for objects that are not files."""

_DACL_INFORMATION = 4
_FILE_OBJECT = 1
_CREATE_NEW = 1
_REVISION = 1
"""The revision of SDDL; there is no other."""
_EVERYBODY = (";WD)", ";AU)", ";BU)", ";AN)", ";BG)")
"""The ends of access entries, as text, for: everyone, authenticated users, users, anonymous,
guests."""

_ADVAPI32 = ctypes.WinDLL("advapi32", use_last_error=True)
_local_free = function(KERNEL32, "LocalFree", ctypes.c_void_p, ctypes.c_void_p)
_create_directory = function(
    KERNEL32,
    "CreateDirectoryW",
    wintypes.BOOL,
    wintypes.LPCWSTR,
    ctypes.POINTER(SecurityAttributes),
)
_create_file = function(
    KERNEL32,
    "CreateFileW",
    ctypes.c_void_p,
    wintypes.LPCWSTR,
    wintypes.DWORD,
    wintypes.DWORD,
    ctypes.POINTER(SecurityAttributes),
    wintypes.DWORD,
    wintypes.DWORD,
    wintypes.HANDLE,
)
_security_info = function(
    _ADVAPI32,
    "GetNamedSecurityInfoW",
    wintypes.DWORD,
    wintypes.LPCWSTR,
    ctypes.c_int,
    wintypes.DWORD,
    *[ctypes.c_void_p] * 4,
    ctypes.POINTER(ctypes.c_void_p),
)
_security_text = function(
    _ADVAPI32,
    "ConvertSecurityDescriptorToStringSecurityDescriptorW",
    wintypes.BOOL,
    ctypes.c_void_p,
    wintypes.DWORD,
    wintypes.DWORD,
    ctypes.POINTER(ctypes.c_void_p),
    ctypes.c_void_p,
)
_security_of_text = function(
    _ADVAPI32,
    "ConvertStringSecurityDescriptorToSecurityDescriptorW",
    wintypes.BOOL,
    wintypes.LPCWSTR,
    wintypes.DWORD,
    ctypes.POINTER(ctypes.c_void_p),
    ctypes.c_void_p,
)


def attributes(sddl: str) -> SecurityAttributes:
    """Security attributes for a new object. What they point to lives as long as the process."""
    descriptor = ctypes.c_void_p()
    _security_of_text(sddl, _REVISION, ctypes.byref(descriptor), None)
    size_bytes = ctypes.sizeof(SecurityAttributes)
    return SecurityAttributes(size_bytes, descriptor, False)


def make_directory(path: Path) -> None:
    """Create a directory that only its owner, the system and administrators may use. Raises
    OSError, also if it exists.
    """
    _create_directory(str(path), ctypes.byref(attributes(OWNER_ONLY)))


def make_file(path: Path) -> Handle:
    """Create a file with the same rights, and open it for writing. Raises OSError, also if it
    exists.
    """
    owner_only = ctypes.byref(attributes(OWNER_ONLY))
    access = GENERIC_READ | GENERIC_WRITE
    return made(_create_file(str(path), access, SHARE_READ, owner_only, _CREATE_NEW, 0x80, None))


class NotPrivate(Exception):
    """A directory that must be private is open to other users; the text says how to change it."""


def make_private(path: Path) -> None:
    """Create a directory that only its owner, the system and administrators may use, or check an
    existing one. Raises OSError, NotPrivate.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            make_directory(path)
            return
    if not is_private(path):
        raise NotPrivate(
            f'{path} is open to others; icacls "{path}" /inheritance:r /grant:r '
            "*S-1-3-4:(OI)(CI)F *S-1-5-18:(OI)(CI)F *S-1-5-32-544:(OI)(CI)F"
        )


def is_private(path: Path) -> bool:
    """Whether no access entry of the file is for one of _EVERYBODY. Raises OSError."""
    descriptor, text = ctypes.c_void_p(), ctypes.c_void_p()
    none = [None] * 4
    error = _security_info(
        str(path), _FILE_OBJECT, _DACL_INFORMATION, *none, ctypes.byref(descriptor)
    )
    if error:
        raise ctypes.WinError(error)
    try:
        _security_text(descriptor, _REVISION, _DACL_INFORMATION, ctypes.byref(text), None)
        entries = ctypes.wstring_at(text.value or 0)
        return not any(end in entries for end in _EVERYBODY) and "(" in entries
    finally:
        _local_free(text)
        _local_free(descriptor)
