"""A wrapper of Windows' service manager: creates, finds, starts and removes services.

Every function raises OSError with `winerror`. Can be imported on Windows only.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from ctypes import wintypes
from dataclasses import dataclass
from typing import Optional

assert sys.platform == "win32"

from hostler_agent.win32 import api
from hostler_agent.win32.api import function

ERROR_SERVICE_EXISTS = 1073
ERROR_SERVICE_NOT_ACTIVE = 1062
ERROR_MARKED_FOR_DELETE = 1072
_ERROR_DOES_NOT_EXIST = 1060
_ERROR_INSUFFICIENT_BUFFER = 122
_ERROR_INVALID_LEVEL = 124

STOPPED, START_PENDING, STOP_PENDING, RUNNING = 1, 2, 3, 4
OWN_PROCESS = 0x10
AUTO_START, DEMAND_START = 2, 3

_CONNECT, _CREATE_SERVICE = 1, 2
_ALL_ACCESS = 0xF01FF
_LOOK = 0x0005  # its configuration and its status
_ERROR_NORMAL = 1
_CONTROL_STOP = 1
_STATUS_PROCESS = 0
_DESCRIPTION, _FAILURE_ACTIONS, _FAILURE_ACTIONS_FLAG = 1, 2, 4
_RESTART = 1


class _StatusProcess(ctypes.Structure):
    _fields_ = tuple(
        (name, wintypes.DWORD)
        for name in (
            *("type", "state", "accepted", "exit_code", "specific_code", "checkpoint"),
            *("wait_hint", "pid", "flags"),
        )
    )


class _Status(ctypes.Structure):
    _fields_ = _StatusProcess._fields_[:7]


class _Configuration(ctypes.Structure):
    _fields_ = (
        ("type", wintypes.DWORD),
        ("start", wintypes.DWORD),
        ("error", wintypes.DWORD),
        ("command", wintypes.LPWSTR),
        ("group", wintypes.LPWSTR),
        ("tag", wintypes.DWORD),
        ("dependencies", wintypes.LPWSTR),
        ("account", wintypes.LPWSTR),
        ("shown", wintypes.LPWSTR),
    )


class _Text(ctypes.Structure):
    _fields_ = (("text", wintypes.LPWSTR),)


class _Flag(ctypes.Structure):
    _fields_ = (("flag", wintypes.BOOL),)


class _Action(ctypes.Structure):
    _fields_ = (("kind", ctypes.c_int), ("delay_ms", wintypes.DWORD))


class _FailureActions(ctypes.Structure):
    _fields_ = (
        ("forgiven_s", wintypes.DWORD),
        ("reboot_message", wintypes.LPWSTR),
        ("command", wintypes.LPWSTR),
        ("count", wintypes.DWORD),
        ("actions", ctypes.POINTER(_Action)),
    )


_ADVAPI32 = ctypes.WinDLL("advapi32", use_last_error=True)
_HANDLE, _TEXT, _NUMBER = wintypes.HANDLE, wintypes.LPCWSTR, wintypes.DWORD
_open_manager = function(_ADVAPI32, "OpenSCManagerW", ctypes.c_void_p, _TEXT, _TEXT, _NUMBER)
_open_service = function(_ADVAPI32, "OpenServiceW", ctypes.c_void_p, _HANDLE, _TEXT, _NUMBER)
_create_service = function(
    _ADVAPI32,
    "CreateServiceW",
    ctypes.c_void_p,
    *(_HANDLE, _TEXT, _TEXT, _NUMBER, _NUMBER, _NUMBER, _NUMBER, _TEXT, _TEXT),
    *(ctypes.c_void_p, _TEXT, _TEXT, _TEXT),
)
_change_config = function(
    _ADVAPI32,
    "ChangeServiceConfigW",
    wintypes.BOOL,
    *(_HANDLE, _NUMBER, _NUMBER, _NUMBER, _TEXT, _TEXT, ctypes.c_void_p),
    *(_TEXT, _TEXT, _TEXT, _TEXT),
)
_change_config2 = function(
    _ADVAPI32, "ChangeServiceConfig2W", wintypes.BOOL, _HANDLE, _NUMBER, ctypes.c_void_p
)
_query_config = function(
    _ADVAPI32,
    "QueryServiceConfigW",
    wintypes.BOOL,
    *(_HANDLE, ctypes.c_void_p, _NUMBER, ctypes.POINTER(wintypes.DWORD)),
)
_query_status = function(
    _ADVAPI32,
    "QueryServiceStatusEx",
    wintypes.BOOL,
    *(_HANDLE, ctypes.c_int, ctypes.c_void_p, _NUMBER, ctypes.POINTER(wintypes.DWORD)),
)
_start = function(
    _ADVAPI32, "StartServiceW", wintypes.BOOL, _HANDLE, wintypes.DWORD, ctypes.c_void_p
)
_control = function(
    _ADVAPI32, "ControlService", wintypes.BOOL, _HANDLE, _NUMBER, ctypes.POINTER(_Status)
)
_delete = function(_ADVAPI32, "DeleteService", wintypes.BOOL, _HANDLE)
_close = function(_ADVAPI32, "CloseServiceHandle", wintypes.BOOL, _HANDLE)


@dataclass(frozen=True)
class Definition:
    """A service's definition. `start` is AUTO_START or DEMAND_START; `account` is one without a
    password.
    """

    shown: str
    command: str
    start: int
    account: str


@dataclass(frozen=True)
class Status:
    """A service's status. `exit_code` is what it reported at its end, or Windows' reason why it did
    not start.
    """

    state: int
    exit_code: int


class Service:
    """An open service. It must be closed: a deletion takes effect only then."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def definition(self) -> Definition:
        """The definition as the manager has it."""
        needed = wintypes.DWORD()
        try:
            _query_config(self._handle, None, 0, ctypes.byref(needed))
        except OSError as error:
            if error.winerror != _ERROR_INSUFFICIENT_BUFFER:
                raise
        buffer = ctypes.create_string_buffer(needed.value)
        _query_config(self._handle, buffer, needed.value, ctypes.byref(needed))
        found = _Configuration.from_buffer(buffer)
        texts = (found.shown, found.command, found.account)
        shown, command, account = (text or "" for text in texts)
        return Definition(shown, command, found.start, account)

    def define(self, wanted: Definition) -> None:
        """Change the definition. A running service uses it when it is started the next time."""
        _change_config(
            self._handle,
            *(OWN_PROCESS, wanted.start, _ERROR_NORMAL, wanted.command),
            *(None, None, None, wanted.account, None, wanted.shown),
        )

    def describe(self, text: str) -> None:
        """Set the description that people read."""
        _change_config2(self._handle, _DESCRIPTION, ctypes.byref(_Text(text)))

    def restart_on_failure(self, delays_ms: Sequence[int], forgiven_s: int) -> None:
        """Restart the service after each of the delays, and after the last one for all that follow;
        also if it ends by itself with an error, not only if its process is killed.
        """
        actions = (_Action * len(delays_ms))(*(_Action(_RESTART, delay) for delay in delays_ms))
        wanted = _FailureActions(forgiven_s, None, None, len(delays_ms), actions)
        _change_config2(self._handle, _FAILURE_ACTIONS, ctypes.byref(wanted))
        try:
            _change_config2(self._handle, _FAILURE_ACTIONS_FLAG, ctypes.byref(_Flag(True)))
        except OSError as error:
            if error.winerror != _ERROR_INVALID_LEVEL:  # Wine 8 does not know it
                raise

    def status(self) -> Status:
        found, needed = _StatusProcess(), wintypes.DWORD()
        size_bytes = ctypes.sizeof(found)
        _query_status(
            self._handle, _STATUS_PROCESS, ctypes.byref(found), size_bytes, ctypes.byref(needed)
        )
        return Status(found.state, found.exit_code)

    def start(self) -> None:
        """Start the service. Returns when its process has reported to the manager; raises the
        reason if it did not.
        """
        _start(self._handle, 0, None)

    def ask_to_stop(self) -> None:
        """Ask the service to stop. Does nothing if it does not run."""
        try:
            _control(self._handle, _CONTROL_STOP, ctypes.byref(_Status()))
        except OSError as error:
            if error.winerror != ERROR_SERVICE_NOT_ACTIVE:
                raise

    def delete(self) -> None:
        """Delete the service. It disappears when it is stopped and nobody has it open. A second
        call does nothing.
        """
        try:
            _delete(self._handle)
        except OSError as error:
            if error.winerror != ERROR_MARKED_FOR_DELETE:
                raise

    def close(self) -> None:
        _close(self._handle)


def create(name: str, wanted: Definition) -> Service:
    """Create a service, which does not run yet."""
    manager = _made(_open_manager(None, None, _CONNECT | _CREATE_SERVICE))
    try:
        handle = _create_service(
            *(manager, name, wanted.shown, _ALL_ACCESS, OWN_PROCESS, wanted.start, _ERROR_NORMAL),
            *(wanted.command, None, None, None, wanted.account, None),
        )
        return Service(_made(handle))
    finally:
        _close(manager)


def find(name: str, *, to_change: bool = True) -> Optional[Service]:
    """Open the service of that name; None if there is none."""
    manager = _made(_open_manager(None, None, _CONNECT))
    try:
        handle = _open_service(manager, name, _ALL_ACCESS if to_change else _LOOK)
        return Service(_made(handle))
    except OSError as error:
        if error.winerror == _ERROR_DOES_NOT_EXIST:
            return None
        raise
    finally:
        _close(manager)


def _made(handle: Optional[int]) -> int:
    if not handle:
        raise api.last_error()
    return handle
