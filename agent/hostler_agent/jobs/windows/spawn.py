"""Starts a process that is in its job from the first instruction, with three handles of ours or a
terminal.

Buildbot's worker, Buildkite, GitLab and BK-CI assign the job after the start, so that a quick child
escapes. Here the job is an attribute of CreateProcess itself (PROC_THREAD_ATTRIBUTE_JOB_LIST). On a
Windows before 10, which does not know the attribute, the process is started suspended, assigned,
and resumed.

The process gets a console without a window of its own (CREATE_NO_WINDOW), so that what it does to
the console, its code page and Ctrl events included, affects only the job. With a pseudo console the
process is given no handles at all: only then does Windows take the console's. (If none were named,
a process would get those of its parent, even if that is an agent whose output is a file.)
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ctypes import wintypes
from dataclasses import dataclass
from typing import Optional, Union

assert sys.platform == "win32"

from hostler_agent.jobs.windows.job_object import JobObject
from hostler_agent.win32 import api
from hostler_agent.win32.api import KERNEL32, Handle, function

_CREATE_SUSPENDED = 0x00000004
_CREATE_UNICODE_ENVIRONMENT = 0x00000400
_EXTENDED_STARTUPINFO_PRESENT = 0x00080000
_CREATE_NO_WINDOW = 0x08000000
_STARTF_USESTDHANDLES = 0x00000100
_ATTRIBUTE_HANDLE_LIST = 0x00020002
_ATTRIBUTE_JOB_LIST = 0x0002000D
_ATTRIBUTE_PSEUDO_CONSOLE = 0x00020016
_TICKS_PER_S = 10_000_000


class _StartupInfo(ctypes.Structure):
    _fields_ = (
        ("cb", wintypes.DWORD),
        ("lpReserved", wintypes.LPWSTR),
        ("lpDesktop", wintypes.LPWSTR),
        ("lpTitle", wintypes.LPWSTR),
        ("dwX", wintypes.DWORD),
        ("dwY", wintypes.DWORD),
        ("dwXSize", wintypes.DWORD),
        ("dwYSize", wintypes.DWORD),
        ("dwXCountChars", wintypes.DWORD),
        ("dwYCountChars", wintypes.DWORD),
        ("dwFillAttribute", wintypes.DWORD),
        ("dwFlags", wintypes.DWORD),
        ("wShowWindow", wintypes.WORD),
        ("cbReserved2", wintypes.WORD),
        ("lpReserved2", ctypes.c_void_p),
        ("hStdInput", wintypes.HANDLE),
        ("hStdOutput", wintypes.HANDLE),
        ("hStdError", wintypes.HANDLE),
    )


class _StartupInfoEx(ctypes.Structure):
    _fields_ = (("StartupInfo", _StartupInfo), ("lpAttributeList", ctypes.c_void_p))


class _ProcessInformation(ctypes.Structure):
    _fields_ = (
        ("hProcess", wintypes.HANDLE),
        ("hThread", wintypes.HANDLE),
        ("dwProcessId", wintypes.DWORD),
        ("dwThreadId", wintypes.DWORD),
    )


class _MemoryCounters(ctypes.Structure):
    """PROCESS_MEMORY_COUNTERS"""

    _fields_ = (
        ("cb", wintypes.DWORD),
        ("PageFaultCount", wintypes.DWORD),
        ("PeakWorkingSetSize", ctypes.c_size_t),
        ("sizes", ctypes.c_size_t * 7),
    )


_create_process = function(
    KERNEL32,
    "CreateProcessW",
    wintypes.BOOL,
    wintypes.LPCWSTR,
    wintypes.LPWSTR,
    ctypes.c_void_p,
    ctypes.c_void_p,
    wintypes.BOOL,
    wintypes.DWORD,
    ctypes.c_void_p,
    wintypes.LPCWSTR,
    ctypes.c_void_p,
    ctypes.POINTER(_ProcessInformation),
)
_initialize_attributes = function(
    KERNEL32,
    "InitializeProcThreadAttributeList",
    wintypes.BOOL,
    ctypes.c_void_p,
    wintypes.DWORD,
    wintypes.DWORD,
    ctypes.POINTER(ctypes.c_size_t),
)
_update_attribute = function(
    KERNEL32,
    "UpdateProcThreadAttribute",
    wintypes.BOOL,
    ctypes.c_void_p,
    wintypes.DWORD,
    ctypes.c_size_t,
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_void_p,
    ctypes.c_void_p,
)
_delete_attributes = function(KERNEL32, "DeleteProcThreadAttributeList", None, ctypes.c_void_p)
_resume_thread = function(KERNEL32, "ResumeThread", wintypes.DWORD, wintypes.HANDLE)
_terminate_process = function(
    KERNEL32, "TerminateProcess", wintypes.BOOL, wintypes.HANDLE, wintypes.UINT
)
_process_times = function(
    KERNEL32, "GetProcessTimes", wintypes.BOOL, wintypes.HANDLE, *[ctypes.c_void_p] * 4
)
_memory_info = function(
    KERNEL32,
    "K32GetProcessMemoryInfo",
    wintypes.BOOL,
    wintypes.HANDLE,
    ctypes.POINTER(_MemoryCounters),
    wintypes.DWORD,
)


@dataclass(frozen=True)
class ProcessStart:
    """The arguments of CreateProcess. `handles` are the job's input, output and error, inheritable;
    None with a `console`, which is a pseudo console's handle.
    """

    program: str
    command_line: str
    environment_block: str
    workdir: str
    handles: tuple[Handle, ...]
    console: Optional[int] = None


@dataclass(frozen=True)
class Started:
    """A process that was started. While its handle is open, its pid is not reused."""

    handle: Handle
    pid: int


def spawn(start: ProcessStart, job: JobObject) -> Started:
    """Start the process in the job. Raises OSError. May block while a virus scanner checks the
    program.
    """
    try:
        return _born_in(start, job)
    except OSError as error:
        if error.winerror not in (api.ERROR_NOT_SUPPORTED, api.ERROR_INVALID_PARAMETER):
            raise
    return spawn_suspended(start, job)


def spawn_suspended(start: ProcessStart, job: JobObject) -> Started:
    """Start the process suspended, assign it to the job, and resume it: for a Windows that cannot
    create processes in jobs.
    """
    started, thread = _create(start, _CREATE_SUSPENDED, None)
    try:
        # One that has been killed meanwhile has never run, so that nothing of it is outside.
        job.attach(started.handle)
        _resume_thread(thread.value)
    except BaseException:
        _terminate_process(started.handle.value, 1)
        started.handle.close()
        raise
    finally:
        thread.close()
    return started


def _born_in(start: ProcessStart, job: JobObject) -> Started:
    started, thread = _create(start, 0, job)
    thread.close()
    return started


def _create(start: ProcessStart, flags: int, job: JobObject | None) -> tuple[Started, Handle]:
    """Create the process. Returns its handle and its first thread's."""
    values: _Attributes = {}
    if start.console is None:
        unique = list(dict.fromkeys(handle.value for handle in start.handles))
        values[_ATTRIBUTE_HANDLE_LIST] = (wintypes.HANDLE * len(unique))(*unique)
        flags |= _CREATE_NO_WINDOW
    else:
        # Of this one attribute the value itself is passed, not its address.
        values[_ATTRIBUTE_PSEUDO_CONSOLE] = ctypes.c_void_p(start.console)
    if job is not None:
        values[_ATTRIBUTE_JOB_LIST] = (wintypes.HANDLE * 1)(job.handle.value)
    flags |= _CREATE_UNICODE_ENVIRONMENT | _EXTENDED_STARTUPINFO_PRESENT
    made = _ProcessInformation()
    with _attributes(values) as attributes:
        startup = _StartupInfoEx()
        startup.StartupInfo.cb = ctypes.sizeof(startup)
        startup.StartupInfo.dwFlags = _STARTF_USESTDHANDLES
        if start.console is None:
            startup.StartupInfo.hStdInput = start.handles[0].value
            startup.StartupInfo.hStdOutput = start.handles[1].value
            startup.StartupInfo.hStdError = start.handles[2].value
        startup.lpAttributeList = attributes
        _create_process(
            start.program,
            # CreateProcessW writes into this string.
            ctypes.create_unicode_buffer(start.command_line),
            None,
            None,
            start.console is None,
            flags,
            ctypes.create_unicode_buffer(start.environment_block),
            start.workdir,
            ctypes.byref(startup),
            ctypes.byref(made),
        )
    return Started(Handle(made.hProcess), made.dwProcessId), Handle(made.hThread)


_Attributes = dict[int, Union["ctypes.Array[wintypes.HANDLE]", ctypes.c_void_p]]


@contextmanager
def _attributes(values: _Attributes) -> Iterator[int]:
    """The address of an attribute list. It points to `values`, which must live as long as
    the list.
    """
    size = ctypes.c_size_t()
    with suppress(OSError):  # That is how it tells the size.
        _initialize_attributes(None, len(values), 0, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    _initialize_attributes(buffer, len(values), 0, ctypes.byref(size))
    try:
        for attribute, value in values.items():
            _update_attribute(buffer, 0, attribute, value, ctypes.sizeof(value), None, None)
        yield ctypes.addressof(buffer)
    finally:
        _delete_attributes(buffer)


def cpu_s(process: Handle) -> float:
    """The CPU time of that process alone in seconds, also after its end."""
    times = [ctypes.c_int64() for _ in range(4)]
    _process_times(process.value, *(ctypes.byref(time) for time in times))
    _created, _ended, kernel, user = times
    return (kernel.value + user.value) / _TICKS_PER_S


def peak_resident_bytes(process: Handle) -> Optional[int]:
    """The peak resident size of that process alone; None if it cannot be known any more (Wine,
    after its end).
    """
    counters = _MemoryCounters()
    counters.cb = ctypes.sizeof(counters)
    try:
        _memory_info(process.value, ctypes.byref(counters), counters.cb)
    except OSError:
        return None
    return counters.PeakWorkingSetSize or None
