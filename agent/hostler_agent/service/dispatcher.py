"""Runs this process as a Windows service: reports its state to the service manager, and handles the
manager's requests.

The manager starts the process, waits until it reports (30 s), and calls it back in threads of its
own. The process ends when its one service has ended. Can be imported on Windows only.
"""

from __future__ import annotations

import ctypes
import logging
import sys
import threading
from ctypes import wintypes
from typing import Any, Callable

assert sys.platform == "win32"

from hostler_agent.service.manager import (
    OWN_PROCESS,
    RUNNING,
    START_PENDING,
    STOP_PENDING,
    STOPPED,
)
from hostler_agent.win32.api import function

ERROR_NOT_STARTED_BY_THE_MANAGER = 1063
_ERROR_CALL_NOT_IMPLEMENTED = 120
_ERROR_SERVICE_SPECIFIC = 1066
_CONTROL_STOP, _CONTROL_INTERROGATE, _CONTROL_SHUTDOWN = 1, 4, 5
_ACCEPT_STOP_AND_SHUTDOWN = 0x1 | 0x4
_START_HINT_MS = 30_000
_STOP_HINT_EXTRA_S = 30.0

SHUTDOWN_DEADLINE_S = 3.0
"""Windows gives a service five seconds when the machine shuts down."""

_Main = ctypes.WINFUNCTYPE(None, wintypes.DWORD, ctypes.POINTER(wintypes.LPWSTR))
_Handler = ctypes.WINFUNCTYPE(
    wintypes.DWORD, wintypes.DWORD, wintypes.DWORD, ctypes.c_void_p, ctypes.c_void_p
)


class _Entry(ctypes.Structure):
    _fields_ = (("name", wintypes.LPWSTR), ("main", _Main))


class _Status(ctypes.Structure):
    _fields_ = tuple(
        (name, wintypes.DWORD)
        for name in (
            *("type", "state", "accepted", "exit_code", "specific_code", "checkpoint"),
            "wait_hint",
        )
    )


_ADVAPI32 = ctypes.WinDLL("advapi32", use_last_error=True)
_dispatch = function(_ADVAPI32, "StartServiceCtrlDispatcherW", wintypes.BOOL, ctypes.c_void_p)
_register = function(
    _ADVAPI32,
    "RegisterServiceCtrlHandlerExW",
    wintypes.HANDLE,
    *(wintypes.LPCWSTR, _Handler, ctypes.c_void_p),
)
_set_status = function(
    _ADVAPI32, "SetServiceStatus", wintypes.BOOL, wintypes.HANDLE, ctypes.POINTER(_Status)
)

log = logging.getLogger(__name__)


class ServiceProcess:
    """Runs `work` as the service `name`; what `work` returns is the service's exit code.

    `end(within_s)` is called in a thread of the manager when the service is to stop.
    """

    def __init__(
        self, name: str, work: Callable[[], int], end: Callable[[float], None], patience_s: float
    ) -> None:
        self._name = name
        self._work = work
        self._end = end
        self._patience_s = patience_s
        self._handle: Any = None
        self._state = START_PENDING
        self._lock = threading.Lock()
        # The manager calls them as long as the process lives.
        self._callbacks = (_Main(self._main), _Handler(self._control))

    def run(self) -> None:
        """Run the service; return when it has stopped. Raises OSError if the service manager has
        not started this process.
        """
        table = (_Entry * 2)(_Entry(self._name, self._callbacks[0]))
        _dispatch(ctypes.byref(table))

    def _main(self, _count: int, _arguments: Any) -> None:
        self._handle = _register(self._name, self._callbacks[1], None)
        self._report(START_PENDING, hint_ms=_START_HINT_MS)
        self._report(RUNNING)
        code = 1
        try:
            code = self._work()
        except BaseException:
            # The outermost boundary of a thread that is not Python's: nobody else would say why.
            log.exception("the service has failed")
        finally:
            self._report(STOPPED, code=code)

    def _control(self, control: int, _kind: int, _data: Any, _context: Any) -> int:
        if control in (_CONTROL_STOP, _CONTROL_SHUTDOWN):
            is_stop = control == _CONTROL_STOP
            within_s = self._patience_s if is_stop else SHUTDOWN_DEADLINE_S
            self._report(STOP_PENDING, hint_ms=int((within_s + _STOP_HINT_EXTRA_S) * 1000))
            self._end(within_s)
            return 0
        # It knows what it has been told.
        return 0 if control == _CONTROL_INTERROGATE else _ERROR_CALL_NOT_IMPLEMENTED

    def _report(self, state: int, *, code: int = 0, hint_ms: int = 0) -> None:
        with self._lock:
            if self._state == STOPPED or (self._state, state) == (STOP_PENDING, RUNNING):
                return
            self._state = state
            status = _Status(
                OWN_PROCESS,
                state,
                _ACCEPT_STOP_AND_SHUTDOWN if state == RUNNING else 0,
                _ERROR_SERVICE_SPECIFIC if code else 0,
                code,
                0,
                hint_ms,
            )
            _set_status(self._handle, ctypes.byref(status))
