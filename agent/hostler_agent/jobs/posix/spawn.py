"""The agent's side of the spawner: starts it, has it start jobs, and receives their exit states."""

from __future__ import annotations

import array
import asyncio
import contextlib
import functools
import importlib.util
import marshal
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Optional

assert sys.platform != "win32"

from hostler_agent.jobs.errors import SpawnerLost, StartFailed
from hostler_agent.jobs.plan import INSTANCE_VARIABLE, JobPlan, View
from hostler_agent.jobs.posix import pipes
from hostler_agent.jobs.posix.job_process import Entries, Order
from hostler_agent.jobs.posix.pipes import Stdio
from hostler_agent.jobs.receipt import Exit

# The code goes in through a pipe, so that it also works from inside agent.pyz, the process list
# shows a name instead of a program text, and none of the packages is loaded with it.
_BOOTSTRAP = """import marshal, sys  # spawner.py
for name, code in marshal.load(open({fd}, 'rb')):
    module = sys.modules[name] = type(sys)(name)
    module.__path__ = []
    exec(code, module.__dict__)
module.main()
"""
_PACKAGE = __name__.rpartition(".")[0]
_MODULES = ("frames", "libc", "view", "job_process", "forked", "teardown", "spawner")
"""The spawner's program, each after what it imports."""

_LOST = "the process that starts jobs has ended"


@dataclass(frozen=True)
class Placement:
    """The cgroups that a job is started in."""

    entries: Sequence[tuple[str, str]] = ()
    """Pairs: the `cgroup.procs` of a cgroup for the job, and the one that leads out of it again."""

    mark: int = 0
    """The mark that all processes of the job inherit, or 0 for none; see `descent`."""

    place: int = 0
    """The number under which a process was forked ahead into these cgroups, or 0; see `ready`."""


@dataclass(frozen=True)
class Child:
    """A started main process."""

    token: int
    pid: int
    exited: asyncio.Future[Exit]
    """How the process ended. Raises SpawnerLost if that cannot be known any more."""
    missing: tuple[str, ...] = ()
    """What the machine could not give of the plan's view; see `receipt.KillReceipt`."""


class SpawnerClient:
    """Starts and signals main processes by the spawner, one per agent. It is started with the first
    job, and again if it was killed.
    """

    def __init__(self, name: str, roots: Sequence[str] = ()) -> None:
        """`roots`: the parents of the jobs' cgroups."""
        self._name = name
        self._roots = tuple(roots)
        self._process: Optional[subprocess.Popen[bytes]] = None
        self._ended: list[subprocess.Popen[bytes]] = []
        self._channel: Optional[socket.socket] = None
        self._received = bytearray()
        # Made when it is needed: before Python 3.10 a lock belongs to the loop it was made in.
        self._sending: Optional[asyncio.Lock] = None
        self._last_token = 0
        self.losses = 0
        """The number of spawners that have ended so far, each with all that it had started."""
        self._starting: dict[int, asyncio.Future[tuple[int, tuple[str, ...]]]] = {}
        self._running: dict[int, asyncio.Future[Exit]] = {}

    @property
    def pid(self) -> Optional[int]:
        """The spawner's pid; None if it does not run."""
        return None if self._process is None else self._process.pid

    @property
    def is_busy(self) -> bool:
        """Whether a start is under way."""
        return bool(self._starting)

    async def start(self, plan: JobPlan, stdio: Stdio, placement: Placement) -> Child:
        """Start a main process. Raises StartFailed or SpawnerLost. Closes the job's ends of `stdio`
        in any case.
        """
        self._last_token += 1
        token = self._last_token
        loop = asyncio.get_running_loop()
        started: asyncio.Future[tuple[int, tuple[str, ...]]] = loop.create_future()
        exited: asyncio.Future[Exit] = loop.create_future()
        # Not everybody asks how it ended; a loss is reported by the one who does.
        exited.add_done_callback(lambda future: future.cancelled() or future.exception())
        self._starting[token] = started
        self._running[token] = exited
        try:
            await self._send(_spawn_frame(token, plan, placement), stdio)
            pid, missing = await started
            return Child(token, pid, exited, missing)
        except BaseException:
            self._running.pop(token, None)
            raise
        finally:
            self._starting.pop(token, None)

    async def prepare(
        self, place: int, entries: Sequence[tuple[str, str]], mark: int, *, namespace: bool
    ) -> None:
        """Have a process forked ahead, into cgroups that are made for the next job and perhaps into
        a mount namespace. Nothing is promised: a spawner that does not run forks nothing.
        """
        if self._channel is not None:
            with contextlib.suppress(SpawnerLost):
                await self._send(("prepare", place, _entries(entries), mark, namespace))

    async def signal(self, child: Child, number: int) -> None:
        """Signal the process group of a child. Does nothing if the child has ended."""
        if child.token in self._running:
            with contextlib.suppress(SpawnerLost):
                await self._send(("signal", child.token, int(number)))

    def warm_up(self) -> None:
        """Start the spawner before the first job."""
        if self._channel is None:
            with contextlib.suppress(OSError):  # the first job tries again, and can tell somebody
                self._launch()

    async def aclose(self) -> None:
        """End the spawner, which kills every process that is left below it."""
        self._lose()
        while self._ended:
            await asyncio.get_running_loop().run_in_executor(None, self._ended.pop().wait)

    def _launch(self) -> None:
        ours, theirs = socket.socketpair()
        reading, writing = os.pipe()
        environment = {**os.environ, INSTANCE_VARIABLE: self._name}
        try:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", "-c", _BOOTSTRAP.format(fd=reading)),
                    *self._roots,
                ],
                stdin=theirs.fileno(),
                pass_fds=(reading,),
                env=environment,
                start_new_session=True,
            )
        finally:
            os.close(reading)
            theirs.close()
        with open(writing, "wb") as pipe:
            pipe.write(_program())
        ours.setblocking(False)
        asyncio.get_running_loop().add_reader(ours.fileno(), self._on_readable)
        self._channel = ours

    async def _send(self, frame: tuple[Any, ...], stdio: Optional[Stdio] = None) -> None:
        """Send a frame with the job's ends of `stdio`, and close them."""
        payload = marshal.dumps(frame)
        data = struct.pack(">I", len(payload)) + payload
        busy = self._sending is not None and self._sending.locked()
        if not busy and self._channel is not None:
            # Nearly always there is room at once, and no task is needed.
            sent = self._send_some(data, stdio)
            if sent == len(data):
                return
            data = data[sent:]
            if sent:
                stdio = None
        # Shielded: a frame that is sent by half would garble all that follow it.
        await asyncio.shield(self._send_all(data, stdio))

    async def _send_all(self, data: bytes, stdio: Optional[Stdio]) -> None:
        if self._sending is None:
            self._sending = asyncio.Lock()
        async with self._sending:
            if self._channel is None:
                self._launch()
            while data:
                sent = self._send_some(data, stdio)
                data = data[sent:]
                if sent:
                    stdio = None
                if data:
                    await pipes.ready(self._channel_descriptor(), writing=True)

    def _send_some(self, data: bytes, stdio: Optional[Stdio]) -> int:
        """Send as much as possible now. Returns how much; the descriptors go with the first
        byte.
        """
        rights = array.array("i", () if stdio is None else stdio.child)
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if stdio else []
        try:
            assert self._channel is not None
            sent = self._channel.sendmsg([data], ancillary)
        except BlockingIOError:
            return 0
        except OSError as error:
            self._lose()
            if stdio is not None:
                stdio.close_child()
            raise SpawnerLost(_LOST) from error
        if stdio is not None:
            stdio.close_child()
        return sent

    def _channel_descriptor(self) -> int:
        if self._channel is None:
            raise SpawnerLost(_LOST)
        return self._channel.fileno()

    def _on_readable(self) -> None:
        assert self._channel is not None
        try:
            data = self._channel.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lose()
            return
        self._received += data
        while len(self._received) >= 4:
            (length,) = struct.unpack_from(">I", self._received)
            if len(self._received) < 4 + length:
                break
            payload = bytes(self._received[4 : 4 + length])
            del self._received[: 4 + length]
            self._handle(marshal.loads(payload))  # noqa: S302 - from our own child

    def _handle(self, frame: tuple[Any, ...]) -> None:
        kind, token, *rest = frame
        if kind == "started":
            pid, missing = rest
            _resolve(self._starting.get(token), (pid, tuple(missing)))
        elif kind == "failed":
            errno, filename, doing = rest
            name = None if filename is None else os.fsdecode(filename)
            self._running.pop(token, None)
            _reject(self._starting.get(token), StartFailed(errno, name, doing))
        elif kind == "exited":
            _resolve(self._running.pop(token, None), _exit(*rest))

    def _lose(self) -> None:
        if self._channel is not None:
            asyncio.get_running_loop().remove_reader(self._channel.fileno())
            self._channel.close()
        if self._process is not None:
            self.losses += 1
            # The spawner's socket closes before it can be reaped; a later call reaps it.
            self._ended = [one for one in (*self._ended, self._process) if one.poll() is None]
        self._process = None
        self._channel = None
        self._received.clear()
        lost = SpawnerLost(_LOST)
        for starting in self._starting.values():
            _reject(starting, lost)
        for running in self._running.values():
            _reject(running, lost)
        self._starting.clear()
        self._running.clear()


def _spawn_frame(token: int, plan: JobPlan, placement: Placement) -> tuple[Any, ...]:
    user = plan.user
    order = Order(
        argv=[os.fsencode(argument) for argument in plan.argv],
        block=os.fsencode("\0".join(map("=".join, plan.environment.items()))),
        workdir=os.fsencode(plan.workdir),
        entries=_entries(placement.entries),
        pty=plan.use_pty,
        mark=placement.mark,
        user=None if user is None else (user.name, user.uid, user.gid, tuple(user.groups)),
        view=_view(plan.view),
        no_new_privileges=plan.no_new_privileges,
        forked=needs_fork(plan),
    )
    return ("spawn", token, placement.place, tuple(order))


def needs_fork(plan: JobPlan) -> bool:
    """Whether the job needs something that posix_spawn cannot do. With a limit of processes the
    spawner itself must not be inside.
    """
    return bool(
        plan.user is not None
        or plan.view != View()
        or plan.no_new_privileges
        or plan.resources.are_limited
    )


def _view(view: View) -> Optional[tuple[Any, ...]]:
    """What the frame carries of a view: the namespaces go beside it, as descriptors."""
    if view == View():
        return None
    binds = tuple(
        (os.fsencode(bind.source), os.fsencode(bind.target), bind.read_only) for bind in view.binds
    )
    return (view.private_tmp, binds, view.hide_proc, view.cgroup_read_only)


def _entries(entries: Sequence[tuple[str, str]]) -> Entries:
    return tuple((os.fsencode(inside), os.fsencode(home)) for inside, home in entries)


@functools.lru_cache(maxsize=1)
def _program() -> bytes:
    """The spawner's modules, compiled; Python's cache of them is used where there is one."""
    names = _PACKAGE.split(".")
    packages = [".".join(names[: count + 1]) for count in range(len(names))]
    parts = [(package, compile("", package, "exec")) for package in packages]
    for name in (f"{_PACKAGE}.{module}" for module in _MODULES):
        spec = importlib.util.find_spec(name)
        assert spec is not None
        # All of Python's own have it, but not the type: zipimport's is registered nowhere.
        loader: Any = spec.loader
        parts.append((name, loader.get_code(name)))
    return marshal.dumps(parts)


def _exit(status: int, cpu_s: float, peak_resident_kib: int) -> Exit:
    code = os.waitstatus_to_exitcode(status)
    return Exit(
        exit_code=code if code >= 0 else None,
        signal=-code if code < 0 else None,
        cpu_s=cpu_s,
        peak_resident_bytes=peak_resident_kib * 1024,
    )


def _resolve(future: Optional[asyncio.Future[Any]], value: object) -> None:
    if future is not None and not future.done():
        future.set_result(value)


def _reject(future: Optional[asyncio.Future[Any]], error: Exception) -> None:
    if future is not None and not future.done():
        future.set_exception(error)
