"""Terminals for jobs: pseudo consoles (ConPTY), which Windows has from 10, version 1809, on.

A pseudo console is a console host process between the job and two pipes of ours. It is not a member
of the job, and it holds the output open until it is closed: so it is closed as soon as the main
process has ended. Closing flushes what was written, and ends the processes that still use it, like
the hangup of a terminal on other systems. It also ends with the agent, when its pipes close.

The output is what a terminal would show: text with control sequences, in lines of COLUMNS.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import sys
import threading
from collections.abc import Iterator
from ctypes import wintypes
from typing import Optional

assert sys.platform == "win32"

from hostler_agent.jobs.windows.pipes import PipeReader, Stdio, output_pipe, silent_pipe
from hostler_agent.win32.api import KERNEL32, Handle, function

COLUMNS, ROWS = 200, 50


class _Size(ctypes.Structure):
    """COORD"""

    _fields_ = (("X", ctypes.c_short), ("Y", ctypes.c_short))


class PseudoConsole:
    """A pseudo console. It is created in a thread, because that starts a program, and closed in
    one, because that waits for the program's end.
    """

    def __init__(self, theirs: tuple[Handle, Handle], ours: Handle) -> None:
        """`theirs`: the ends that the console reads and writes. `ours`: the other end of the pipe
        that it reads, which stays open and silent as long as the console lives.
        """
        self._theirs = theirs
        self._ours = ours
        self._handle: Optional[int] = None
        self._is_closed = False
        self._in_use = threading.Lock()

    @contextlib.contextmanager
    def opened(self) -> Iterator[int]:
        """The console's handle, to start a process on it; it is not closed meanwhile. Raises
        OSError.
        """
        with self._in_use:
            if self._is_closed:
                raise OSError(errno.ECANCELED, "nobody waits for the start any more")
            created = ctypes.c_void_p()
            source, target = self._theirs
            size = _Size(COLUMNS, ROWS)
            _functions()[0](size, source.value, target.value, 0, ctypes.byref(created))
            self._handle = created.value
            yield self._handle or 0

    def close(self) -> None:
        """Close the console in the background. A second call does nothing."""
        if not self._is_closed:
            self._is_closed = True
            # No thread of a pool: before Windows 11 it waits until all its clients have ended, for
            # however long, and the agent's own end must not wait for that.
            name = "close pseudo console"
            threading.Thread(target=self._close, name=name, daemon=True).start()

    def _close(self) -> None:
        with self._in_use:
            if self._handle is not None:
                _functions()[1](self._handle)
        self._ours.close()


class TerminalReader(PipeReader):
    """Reads everything that the terminal shows."""

    def __init__(self, handle: Handle, console: PseudoConsole) -> None:
        super().__init__(handle)
        self._console = console

    def close(self) -> None:
        # First, so that closing the console does not wait for somebody to read the rest.
        super().close()
        self._console.close()


def open_terminal() -> tuple[Stdio, PseudoConsole]:
    """Open the pipes of a terminal, whose console is opened later. Raises OSError if the agent has
    no handles left.
    """
    ours, source = silent_pipe()
    try:
        shown, target = output_pipe()
    except BaseException:
        ours.close()
        source.close()
        raise
    console = PseudoConsole((source, target), ours)
    return Stdio((source, target), {"stdout": TerminalReader(shown, console)}, None), console


def _functions() -> tuple[ctypes._FuncPointer, ctypes._FuncPointer]:
    """The functions to create and to close a pseudo console, which an older Windows does
    not have.
    """
    create = function(
        KERNEL32,
        "CreatePseudoConsole",
        ctypes.HRESULT,
        _Size,
        wintypes.HANDLE,
        wintypes.HANDLE,
        wintypes.DWORD,
        ctypes.POINTER(ctypes.c_void_p),
    )
    return create, function(KERNEL32, "ClosePseudoConsole", None, ctypes.c_void_p)
