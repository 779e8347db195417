"""The part of the Windows API that the agent uses, with types. It decides nothing.

It uses ctypes and not pywin32, because agent.pyz cannot carry compiled modules. Every function
raises OSError with `winerror`. Loads on Windows only.
"""

from __future__ import annotations

import ctypes
import sys
from ctypes import wintypes
from typing import Any, Optional

assert sys.platform == "win32"

INFINITE = 0xFFFFFFFF
INVALID_HANDLE_VALUE = ctypes.c_void_p(-1).value
STILL_ACTIVE = 259

ERROR_FILE_NOT_FOUND = 2
ERROR_ACCESS_DENIED = 5
ERROR_NOT_SUPPORTED = 50
ERROR_INVALID_PARAMETER = 87
ERROR_ALREADY_EXISTS = 183
ERROR_MORE_DATA = 234
ERROR_DIRECTORY = 267
WAIT_TIMEOUT = 258

GENERIC_READ = 0x80000000
GENERIC_WRITE = 0x40000000
FILE_READ_ATTRIBUTES = 0x0080
FILE_WRITE_ATTRIBUTES = 0x0100
SHARE_READ, SHARE_WRITE, SHARE_DELETE = 1, 2, 4
OPEN_EXISTING = 3
FILE_FLAG_BACKUP_SEMANTICS = 0x02000000
FILE_FLAG_OPEN_REPARSE_POINT = 0x00200000
FILE_ATTRIBUTE_READONLY = 0x0001
FILE_ATTRIBUTE_DIRECTORY = 0x0010
FILE_ATTRIBUTE_REPARSE_POINT = 0x0400
FILE_ATTRIBUTE_NORMAL = 0x0080


class SecurityAttributes(ctypes.Structure):
    _fields_ = (
        ("nLength", wintypes.DWORD),
        ("lpSecurityDescriptor", wintypes.LPVOID),
        ("bInheritHandle", wintypes.BOOL),
    )


class FileInformation(ctypes.Structure):
    """BY_HANDLE_FILE_INFORMATION"""

    _fields_ = (
        ("dwFileAttributes", wintypes.DWORD),
        ("ftCreationTime", wintypes.FILETIME),
        ("ftLastAccessTime", wintypes.FILETIME),
        ("ftLastWriteTime", wintypes.FILETIME),
        ("dwVolumeSerialNumber", wintypes.DWORD),
        ("nFileSizeHigh", wintypes.DWORD),
        ("nFileSizeLow", wintypes.DWORD),
        ("nNumberOfLinks", wintypes.DWORD),
        ("nFileIndexHigh", wintypes.DWORD),
        ("nFileIndexLow", wintypes.DWORD),
    )


class _BasicInformation(ctypes.Structure):
    """FILE_BASIC_INFO; a time of 0 leaves it as it is."""

    _fields_ = (("times", ctypes.c_int64 * 4), ("FileAttributes", wintypes.DWORD))


class Handle:
    """Owns a kernel object's handle. `fileno` lets asyncio's Proactor read and write through it."""

    def __init__(self, value: int) -> None:
        self._value: Optional[int] = value

    @property
    def value(self) -> int:
        """The handle's number. Raises ValueError if it is closed: the number may be another
        object's by now.
        """
        if self._value is None:
            raise ValueError("the handle is closed")
        return self._value

    @property
    def is_open(self) -> bool:
        return self._value is not None

    def fileno(self) -> int:
        return self.value

    def detach(self) -> int:
        """Give the handle to the caller, who must close it."""
        value, self._value = self.value, None
        return value

    def close(self) -> None:
        """Close the handle. A second call does nothing."""
        value, self._value = self._value, None
        if value is not None:
            _close_handle(value)


def function(library: ctypes.WinDLL, name: str, result: Any, *arguments: Any) -> Any:
    """A function of a library. One that returns BOOL raises OSError for FALSE."""
    found = getattr(library, name)
    found.restype = result
    found.argtypes = arguments
    if result is wintypes.BOOL:
        found.errcheck = _checked
    return found


def last_error() -> OSError:
    return ctypes.WinError(ctypes.get_last_error())


def _checked(result: int, _function: Any, _arguments: Any) -> int:
    if not result:
        raise last_error()
    return result


KERNEL32 = ctypes.WinDLL("kernel32", use_last_error=True)

_close_handle = function(KERNEL32, "CloseHandle", wintypes.BOOL, wintypes.HANDLE)
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
_wait = function(KERNEL32, "WaitForSingleObject", wintypes.DWORD, wintypes.HANDLE, wintypes.DWORD)
_file_information = function(
    KERNEL32,
    "GetFileInformationByHandle",
    wintypes.BOOL,
    wintypes.HANDLE,
    ctypes.POINTER(FileInformation),
)


_set_file_information = function(
    KERNEL32,
    "SetFileInformationByHandle",
    wintypes.BOOL,
    wintypes.HANDLE,
    ctypes.c_int,
    ctypes.c_void_p,
    wintypes.DWORD,
)


_final_path_name = function(
    KERNEL32,
    "GetFinalPathNameByHandleW",
    wintypes.DWORD,
    wintypes.HANDLE,
    wintypes.LPWSTR,
    wintypes.DWORD,
    wintypes.DWORD,
)


def final_path(handle: int) -> str:
    r"""The path of an open file or directory without links, as `\\?\C:\...`."""
    size = 512
    while True:
        buffer = ctypes.create_unicode_buffer(size)
        length = _final_path_name(handle, buffer, size, 0)
        if length == 0:
            raise last_error()
        if length < size:
            return buffer.value
        size = length + 1


def inheritable() -> SecurityAttributes:
    """Security attributes for a handle that a child process inherits."""
    return SecurityAttributes(ctypes.sizeof(SecurityAttributes), None, True)


def create_file(
    path: str,
    access: int,
    share: int,
    flags: int = 0,
    security: Optional[SecurityAttributes] = None,
) -> Handle:
    """Open what exists already: a file, a directory, a pipe or a device."""
    by_reference = None if security is None else ctypes.byref(security)
    return made(_create_file(path, access, share, by_reference, OPEN_EXISTING, flags, None))


def made(value: Optional[int]) -> Handle:
    """Take the handle that a function returned. Raises OSError if the function failed."""
    if value is None or value in (0, INVALID_HANDLE_VALUE):
        raise last_error()
    return Handle(value)


def is_signaled(handle: Handle, timeout_ms: int = 0) -> bool:
    """Whether a process has ended. Waits for that up to `timeout_ms`."""
    return bool(_wait(handle.value, timeout_ms) == 0)


def file_information(handle: Handle) -> FileInformation:
    information = FileInformation()
    _file_information(handle.value, ctypes.byref(information))
    return information


def set_attributes(handle: Handle, attributes: int) -> None:
    """Set the attributes (FILE_ATTRIBUTE_*) of an open file."""
    information = _BasicInformation()
    information.FileAttributes = attributes
    size_bytes = ctypes.sizeof(information)
    _set_file_information(handle.value, 0, ctypes.byref(information), size_bytes)
