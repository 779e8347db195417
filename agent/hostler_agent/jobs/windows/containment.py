"""Jobs on Windows, each in a Job Object of its own; the functions are those of `posix`.

No process of a job outlives the job or the agent: the job's only handle is in the agent, and the
kernel kills all members when it is closed. What Windows starts on behalf of a process (a scheduled
task, a service, a COM server) is not a child of the job, and never in it.
"""

from __future__ import annotations

import asyncio
import errno
import ntpath
import os
import sys
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Optional

assert sys.platform == "win32"

from hostler_agent.jobs.errors import (
    ContainmentUnavailable,
    LimitUnavailable,
    PlanRefused,
    StartFailed,
)
from hostler_agent.jobs.plan import JobPlan, Resources
from hostler_agent.jobs.receipt import Exit, Leftovers, ProcessName, Usage
from hostler_agent.jobs.windows import completion_port, ctrl_break, quoting, spawn, terminal
from hostler_agent.jobs.windows.completion_port import Port
from hostler_agent.jobs.windows.job_object import KILL_CODE, JobObject, exit_code
from hostler_agent.jobs.windows.pipes import PipeReader, PipeWriter, Stdio, open_stdio
from hostler_agent.jobs.windows.terminal import PseudoConsole
from hostler_agent.win32 import api

MAX_PROCESSES = 4096
"""The limit of processes for a job that sets none, as on Linux (E3)."""

_CONSOLE_HOST = "conhost.exe"
"""The program that serves the console of the job's processes, and ends with them."""

_POLL_S = 0.5
"""The interval at which to check for an event whose message was lost, in seconds."""
_CLOSE_DEADLINE_S = 10.0


def establish(preference: str, root_name: str) -> JobObjectContainment:
    """Create the containment. Raises ContainmentUnavailable."""
    if preference not in ("auto", "job_object"):
        raise ContainmentUnavailable(f"this platform has no containment {preference!r}")
    return JobObjectContainment(root_name)


class JobObjectContainment:
    name = "job_object"

    def __init__(self, root_name: str) -> None:
        self.root_name = root_name
        self._port: Optional[Port] = None
        self._open: list[JobObjectEnclosure] = []

    def open(self, command_id: str) -> JobObjectEnclosure:
        del command_id  # Job Objects of ours have no names: those are for anybody to open.
        if self._port is None:
            self._port = Port()
        enclosure = JobObjectEnclosure(self, self._port)
        self._open.append(enclosure)
        return enclosure

    def forget(self, enclosure: JobObjectEnclosure) -> None:
        if enclosure in self._open:
            self._open.remove(enclosure)

    def warm_up(self) -> None:
        """Do nothing: nothing is prepared for later jobs."""

    async def sweep(self) -> tuple[ProcessName, ...]:
        """Do nothing: the death of an agent closes its jobs, which kills their processes."""
        return ()

    async def aclose(self) -> None:
        for enclosure in list(self._open):
            await enclosure.empty(_CLOSE_DEADLINE_S)
        if self._port is not None:
            await self._port.aclose()
            self._port = None


class JobObjectEnclosure:
    """The Job Object of one job; see containment.Enclosure."""

    def __init__(self, containment: JobObjectContainment, port: Port) -> None:
        self._containment = containment
        self._port = port
        self._job: Optional[JobObject] = None
        self._key = port.add(self._heard)
        self._main: Optional[JobProcess] = None
        self._spawning: Optional[asyncio.Future[spawn.Started]] = None
        self._emptied = asyncio.Event()

    async def start(self, plan: JobPlan) -> JobProcess:
        """Start the main process. Raises PlanRefused, LimitUnavailable, StartFailed or OSError."""
        program, line = command_line(plan)
        block = quoting.environment_block(plan.environment)
        self._job = _job_object(plan.resources)
        self._job.report_to(self._port.handle, self._key)
        console = None
        if plan.use_pty:
            stdio, console = terminal.open_terminal()
        else:
            stdio = open_stdio(plan.stdin is not None)
        workdir = ntpath.normpath(plan.workdir)
        start = spawn.ProcessStart(program, line, block, workdir, stdio.child)
        loop = asyncio.get_running_loop()
        self._spawning = loop.run_in_executor(None, _spawn, start, self._job, stdio, console)
        try:
            # Shielded: a process that is being made cannot be called back. empty() waits for it.
            started = await asyncio.shield(self._spawning)
            await stdio.open()
        except OSError as error:
            stdio.close_ours()
            raise _start_failed(error, plan) from error
        except BaseException:
            stdio.close_ours()
            raise
        self._main = JobProcess(started, stdio, console)
        return self._main

    def holders(self, readers: Collection[object]) -> tuple[ProcessName, ...]:
        """Names of all processes that are alive: Windows does not tell which of them hold
        a pipe.
        """
        if self._job is None or not readers:
            return ()
        return tuple(one for one in self._job.members() if one.name != _CONSOLE_HOST)

    def usage(self) -> Usage:
        return Usage() if self._job is None else self._job.usage()

    async def empty(self, deadline_s: float) -> Leftovers:
        if self._spawning is not None and not self._spawning.done():
            await asyncio.wait({self._spawning})
        job = self._job
        if job is None or not job.handle.is_open:
            self._close()
            return Leftovers()
        found = job.members()
        ends_at = asyncio.get_running_loop().time() + deadline_s
        while True:
            self._emptied.clear()
            job.terminate()
            left_s = ends_at - asyncio.get_running_loop().time()
            if job.account().active == 0 or left_s <= 0:
                break
            await self._wait_emptied(min(left_s, _POLL_S))
        survivors = job.members()
        if not survivors:
            self._close()
        return Leftovers(found, survivors)

    async def _wait_emptied(self, limit_s: float) -> None:
        try:
            await asyncio.wait_for(self._emptied.wait(), limit_s)
        except asyncio.TimeoutError:
            return

    def _heard(self, message: int, _pid: int) -> None:
        if message == completion_port.ACTIVE_PROCESS_ZERO:
            self._emptied.set()
        if self._main is not None:
            self._main.poll()

    def _close(self) -> None:
        self._port.remove(self._key)
        if self._job is not None:
            self._job.close()
        if self._main is not None:
            self._main.poll()
        self._containment.forget(self)


class JobProcess:
    """A main process; see containment.Process."""

    def __init__(
        self, started: spawn.Started, stdio: Stdio, console: Optional[PseudoConsole]
    ) -> None:
        self._handle = started.handle
        self._console = console
        self.pid = started.pid
        self.missing: tuple[str, ...] = ()
        self.readers: Mapping[str, PipeReader] = stdio.readers
        self.writer: Optional[PipeWriter] = stdio.writer
        self._loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[Exit] = self._loop.create_future()
        self._later: Optional[asyncio.TimerHandle] = None
        self.poll()

    def poll(self) -> None:
        """Check whether the process has ended; if not, check again after _POLL_S."""
        if self._later is not None:
            self._later.cancel()
            self._later = None
        if self.exited.done():
            return
        if api.is_signaled(self._handle):
            self.exited.set_result(_exit(self._handle))
            self._handle.close()
            if self._console is not None:
                self._console.close()
        else:
            self._later = self._loop.call_later(_POLL_S, self.poll)

    async def terminate(self) -> None:
        if not self.exited.done():
            await ctrl_break.ask_to_end(self.pid)


def command_line(plan: JobPlan) -> tuple[str, str]:
    """The program's path, and the command line for CreateProcess. Raises PlanRefused or
    StartFailed.
    """
    if plan.is_shell:
        shell, command = plan.argv[0], plan.argv[-1]
        return shell, quoting.shell_line(shell, command)
    name, arguments = plan.argv[0], plan.argv[1:]
    environment = {name.upper(): value for name, value in plan.environment.items()}
    program = quoting.find_program(name, plan.workdir, environment, os.path.isfile)
    if program is None:
        raise StartFailed(errno.ENOENT, name)
    if not quoting.is_batch(program):
        return program, quoting.program_line(program, arguments)
    if not plan.allow_batch:
        raise PlanRefused(
            f"{name!r} is a batch file, whose arguments cmd.exe would interpret; ask for it with "
            "'batch_files', or write the command as one string"
        )
    shell = os.environ.get("COMSPEC", r"C:\Windows\System32\cmd.exe")
    return shell, quoting.batch_line(shell, program, arguments)


def _job_object(resources: Resources) -> JobObject:
    try:
        return JobObject(resources.bounded(MAX_PROCESSES))
    except OSError as error:
        if not resources.are_limited:
            raise
        why = f"is refused by Windows: {error.strerror or error}"
        raise LimitUnavailable("the command", "Job Object", why) from error


def _spawn(
    start: spawn.ProcessStart, job: JobObject, stdio: Stdio, console: Optional[PseudoConsole]
) -> spawn.Started:
    try:
        if console is None:
            return spawn.spawn(start, job)
        with console.opened() as handle:
            return spawn.spawn(replace(start, console=handle), job)
    finally:
        stdio.close_child()


def _start_failed(error: OSError, plan: JobPlan) -> StartFailed:
    if error.winerror == api.ERROR_DIRECTORY:
        return StartFailed(errno.ENOENT, plan.workdir)
    return StartFailed(error.errno or errno.EIO, plan.argv[0])


def _exit(process: api.Handle) -> Exit:
    code = exit_code(process)
    return Exit(
        exit_code=None if code == KILL_CODE else code,
        signal=None,
        cpu_s=spawn.cpu_s(process),
        peak_resident_bytes=spawn.peak_resident_bytes(process),
    )
