"""The completion port to which Job Objects report that processes start and end, and that a job is
empty.

One thread waits there for all jobs, and passes each message on to the event loop. Windows
guarantees the delivery of only some messages, so they are hints to check, and whoever waits also
checks at intervals.
"""

from __future__ import annotations

import asyncio
import ctypes
import itertools
import sys
import threading
from ctypes import wintypes
from typing import Callable

assert sys.platform == "win32"

from hostler_agent.win32 import api
from hostler_agent.win32.api import INFINITE, INVALID_HANDLE_VALUE, KERNEL32, Handle, function

ACTIVE_PROCESS_ZERO = 4
NEW_PROCESS = 6
EXIT_PROCESS = 7
ABNORMAL_EXIT_PROCESS = 8

Listener = Callable[[int, int], None]
"""Called in the loop with the message and, where it is about a process, its pid."""

_STOP = 0

_create_port = function(
    KERNEL32,
    "CreateIoCompletionPort",
    ctypes.c_void_p,
    wintypes.HANDLE,
    wintypes.HANDLE,
    ctypes.c_void_p,
    wintypes.DWORD,
)
_get = function(
    KERNEL32,
    "GetQueuedCompletionStatus",
    wintypes.BOOL,
    wintypes.HANDLE,
    ctypes.POINTER(wintypes.DWORD),
    ctypes.POINTER(ctypes.c_size_t),
    ctypes.POINTER(ctypes.c_size_t),
    wintypes.DWORD,
)
_post = function(
    KERNEL32,
    "PostQueuedCompletionStatus",
    wintypes.BOOL,
    wintypes.HANDLE,
    wintypes.DWORD,
    ctypes.c_size_t,
    ctypes.c_void_p,
)


class Port:
    """The port and its thread. Must be made inside the running event loop, and closed."""

    def __init__(self) -> None:
        self.handle: Handle = api.made(_create_port(INVALID_HANDLE_VALUE, None, None, 1))
        self._loop = asyncio.get_running_loop()
        self._keys = itertools.count(_STOP + 1)
        self._listeners: dict[int, Listener] = {}
        self._thread = threading.Thread(target=self._wait, name="job messages", daemon=True)
        self._thread.start()

    def add(self, listener: Listener) -> int:
        """Register a listener. Returns the key with which its job is to report."""
        key = next(self._keys)
        self._listeners[key] = listener
        return key

    def remove(self, key: int) -> None:
        self._listeners.pop(key, None)

    async def aclose(self) -> None:
        if self.handle.is_open:
            _post(self.handle.value, 0, _STOP, None)
            await self._loop.run_in_executor(None, self._thread.join)
            self.handle.close()

    def _wait(self) -> None:
        message, key, pid = wintypes.DWORD(), ctypes.c_size_t(), ctypes.c_size_t()
        while True:
            _get(
                self.handle.value,
                ctypes.byref(message),
                ctypes.byref(key),
                ctypes.byref(pid),
                INFINITE,
            )
            if key.value == _STOP:
                return
            try:
                self._loop.call_soon_threadsafe(
                    self._notify_listener, key.value, message.value, pid.value
                )
            except RuntimeError:
                return  # The loop is closed: nobody listens any more.

    def _notify_listener(self, key: int, message: int, pid: int) -> None:
        listener = self._listeners.get(key)
        if listener is not None:
            listener(message, pid)
