"""The spawner: a small process beside the agent that starts jobs and reaps them.

Run by the agent as a program of its own, from this source, with nothing but the standard library.

Why a process of its own. A job must be in its cgroup before it can fork (E4), and Python can do
that in the child only (`preexec_fn`: 2.6 to 4.5 ms a command measured in an agent of 23 to 65 MiB,
and unsafe beside threads) or through a shell (1.5 ms, but dash drops variables whose names are no
identifiers). This process has one thread and no ballast: it steps into the job's cgroup itself,
calls posix_spawn (0.1 ms), and steps out again. The child is inside from its first instruction.

What it also gives:
- It is the subreaper of everything that jobs leave behind, so no process of a job ever gets away
  from the agent's descendants, whatever the containment.
- It is the only parent and the only one that reaps, so a pid that it signals is never a stranger's
  (E6).
- When the agent dies, by whatever signal, the socket closes and the spawner kills all jobs.
- Its oom_score_adj, and so that of all jobs, is above the agent's, so that the kernel takes a build
  before its agent: 0 beneath an agent that could guard itself, else 500 more than the agent's own.

The protocol: frames of a 4-byte big-endian length and a marshalled tuple (both ends are the same
interpreter), over a socket pair whose end is the standard input.

    agent -> spawner   ("spawn", token, argv, environment, workdir, entries, seals, pty, mark)
                       and three descriptors: the job's standard input, output and error
                       ("signal", token, signal number)     to the job's process group
    spawner -> agent   ("started", token, pid)
                       ("failed", token, errno, file name or None)
                       ("exited", token, wait status, CPU seconds, peak resident KiB)

Strings are bytes, the environment one block of `NAME=value` with NULs between; `entries` are pairs
of `cgroup.procs` files: the job's, and the one in that hierarchy that leads out again. `seals` are
pairs of files of those cgroups, and what is written to them between the birth of the job and its
first instruction: a limit on processes can be exact only when the spawner is out. `mark` is a
number that all processes of the job inherit (see `posix`), or 0. The command line has the cgroups
above the jobs', to be removed when the agent is dead.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import errno
import marshal
import os
import resource
import select
import signal
import socket
import struct
import sys
import time
from typing import Any, Callable, NoReturn, Optional

assert sys.platform != "win32"

_PR_SET_CHILD_SUBREAPER = 36
_RLIMIT_LOCKS = 10
"""Kept, inherited and shown by Linux, and otherwise without a meaning since 2.4.25."""

_DESCRIPTORS = 3


def receive(channel: socket.socket) -> Optional[tuple[tuple[Any, ...], list[int]]]:
    """The next frame and the descriptors that came with it; None if the agent is gone."""
    descriptors = array.array("i")
    room = socket.CMSG_SPACE(_DESCRIPTORS * descriptors.itemsize)
    # Close-on-exec, or a job would inherit them twice.
    flags = socket.MSG_WAITALL | socket.MSG_CMSG_CLOEXEC
    header, ancillary, _flags, _address = channel.recvmsg(4, room, flags)
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    if len(header) < 4:
        return None
    (length,) = struct.unpack(">I", header)
    chunks = []
    while length:
        chunk = channel.recv(min(length, 1 << 16))
        if not chunk:
            return None
        chunks.append(chunk)
        length -= len(chunk)
    frame = marshal.loads(b"".join(chunks))  # noqa: S302 - from our own parent, a private socket
    return frame, list(descriptors)


def enter(entries: tuple[tuple[bytes, bytes], ...]) -> None:
    for inside, _home in entries:
        write(inside, b"0")


def write(path: bytes, text: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text)
    finally:
        os.close(descriptor)


def file_actions(descriptors: list[int], pty: bool) -> list[tuple[Any, ...]]:
    if not pty:
        return [(os.POSIX_SPAWN_DUP2, ours, theirs) for theirs, ours in enumerate(descriptors)]
    # Opened by the leader of a session without one, a terminal becomes its controlling terminal.
    name = os.ttyname(descriptors[0])
    return [
        (os.POSIX_SPAWN_OPEN, 0, name, os.O_RDWR, 0),
        (os.POSIX_SPAWN_DUP2, 0, 1),
        (os.POSIX_SPAWN_DUP2, 0, 2),
    ]


def candidates(program: bytes, path: bytes) -> list[bytes]:
    """The paths at which a program may be, by the job's own PATH."""
    if b"/" in program:
        return [program]
    return [os.path.join(directory or b".", program) for directory in path.split(b":")]  # noqa: PTH118


_IGNORED = (signal.SIGPIPE, signal.SIGXFSZ)
"""By Python; what is ignored would stay so."""


class Program:
    """What a job runs: its command line, its variables, its three streams."""

    def __init__(
        self, argv: list[bytes], environment: dict[bytes, bytes], actions: list[tuple[Any, ...]]
    ) -> None:
        self.argv = argv
        self._environment = environment
        self._actions = actions

    def spawn(self) -> int:
        """Start the program. Returns its pid. Raises OSError with the program's name."""
        return self._first_of_path(
            lambda path: os.posix_spawn(
                path,
                self.argv,
                self._environment,
                file_actions=self._actions,
                setsid=True,
                setsigmask=(),
                setsigdef=_IGNORED,
            )
        )

    def execute(self) -> NoReturn:
        """Replace this process, which is a fork, by the program. Raises OSError."""
        os.setsid()
        for number in _IGNORED:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        for action, *details in self._actions:
            if action == os.POSIX_SPAWN_OPEN:
                theirs, *how = details
                ours = os.open(*how)
            else:
                ours, theirs = details
            os.dup2(ours, theirs)
        self._first_of_path(
            lambda path: os.execve(path, self.argv, self._environment)  # noqa: S606
        )
        raise AssertionError("a process that runs another program does not come back")

    def _first_of_path(self, start: Callable[[bytes], int]) -> int:
        failure = errno.ENOENT
        path = self._environment.get(b"PATH", os.fsencode(os.defpath))
        for program in candidates(self.argv[0], path):
            try:
                return start(program)
            except OSError as error:  # noqa: PERF203 - each is a try of its own
                # As a shell does: a program without permission is what is told, if none runs.
                if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                    failure = error.errno or errno.EIO
        raise OSError(failure, "cannot be started", self.argv[0])


class Held:
    """A process that exists, and runs its program when run() is called."""

    def __init__(self, program: Program) -> None:
        self._program = program
        gate, self._gate = os.pipe2(os.O_CLOEXEC)
        self._failure, failure = os.pipe2(os.O_CLOEXEC)
        try:
            self.pid = os.fork()
            if self.pid == 0:
                os.close(self._gate)  # or it would not be told of the spawner's end
                self._wait_and_run(gate, failure)
        except OSError:
            self._close()
            raise
        finally:
            os.close(gate)
            os.close(failure)

    def run(self) -> None:
        """Let the process run its program. Raises OSError as spawn() does."""
        with contextlib.suppress(BrokenPipeError):  # killed, which is for the receipt to tell
            os.write(self._gate, b"\0")
        number = os.read(self._failure, 4)
        self._close()
        if number:
            os.waitpid(self.pid, 0)
            raise OSError(*struct.unpack("i", number), "cannot be started", self._program.argv[0])

    def abandon(self) -> None:
        self._close()
        os.waitpid(self.pid, 0)

    def _close(self) -> None:
        os.close(self._gate)
        os.close(self._failure)

    def _wait_and_run(self, gate: int, failure: int) -> NoReturn:
        try:
            signal.set_wakeup_fd(-1)
            if os.read(gate, 1):
                self._program.execute()
        except OSError as error:
            os.write(failure, struct.pack("i", error.errno or errno.EIO))
        finally:
            os._exit(127)


def run_sealed(held: Held, seals: tuple[tuple[bytes, bytes], ...]) -> None:
    try:
        for path, text in seals:
            write(path, text)
    except OSError:
        held.abandon()
        raise
    held.run()


class Spawner:
    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._homes: dict[bytes, int] = {}
        self._own_mark, self._most_marks = resource.getrlimit(_RLIMIT_LOCKS)
        self._tokens: dict[int, int] = {}
        self._pids: dict[int, int] = {}

    def serve(self, child_ended: int) -> None:
        """Serve the agent until it is gone. `child_ended` becomes readable with each SIGCHLD."""
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        poll.register(child_ended, select.POLLIN)
        while True:
            ready = [descriptor for descriptor, _events in poll.poll()]
            if child_ended in ready:
                os.read(child_ended, 4096)
                self.reap()
            if self._channel.fileno() in ready:
                received = receive(self._channel)
                if received is None:
                    return
                self._handle(*received)

    def reap(self) -> None:
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            token = self._tokens.pop(pid, None)
            if token is not None:
                self._pids.pop(token)
                cpu_s = usage.ru_utime + usage.ru_stime
                self._send(("exited", token, status, cpu_s, usage.ru_maxrss))

    def _handle(self, frame: tuple[Any, ...], descriptors: list[int]) -> None:
        if frame[0] == "spawn":
            try:
                self._spawn(frame, descriptors)
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)
        elif frame[0] == "signal":
            _name, token, number = frame
            pid = self._pids.get(token)
            if pid is not None:
                # It has a session, so a process group, of its own since before its exec.
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(pid, number)

    def _spawn(self, frame: tuple[Any, ...], descriptors: list[int]) -> None:
        _name, token, argv, block, workdir, entries, seals, pty, mark = frame
        environment = dict(item.split(b"=", 1) for item in block.split(b"\0") if item)
        try:
            program = Program(argv, environment, file_actions(descriptors, pty))
            try:
                enter(entries)
                os.chdir(workdir)
                if mark:
                    self._mark(mark)
                # A fork takes longer than posix_spawn: only where it is needed. (A job with such a
                # limit takes 2 to 4 ms more.)
                held = Held(program) if seals else None
                pid = program.spawn() if held is None else held.pid
            finally:
                os.chdir("/")
                if mark:
                    self._mark(self._own_mark)
                self._return(entries)
            if held is not None:
                run_sealed(held, seals)
        except OSError as error:
            culprit = None if error.filename is None else os.fsencode(error.filename)
            self._send(("failed", token, error.errno or errno.EIO, culprit))
            return
        self._tokens[pid] = token
        self._pids[token] = pid
        self._send(("started", token, pid))

    def _mark(self, mark: int) -> None:
        """Set the mark that every process started from here inherits; a job's 0 means none."""
        # Refused where somebody has bounded what bounds nothing: there is no mark then.
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(_RLIMIT_LOCKS, (mark, self._most_marks))

    def _return(self, entries: tuple[tuple[bytes, bytes], ...]) -> None:
        """Leave the job's cgroups, through files that stay open."""
        for _inside, home in entries:
            if home not in self._homes:
                self._homes[home] = os.open(home, os.O_WRONLY | os.O_CLOEXEC)
            os.pwrite(self._homes[home], b"0", 0)

    def _send(self, frame: tuple[Any, ...]) -> None:
        payload = marshal.dumps(frame)
        # A dead agent is noticed by the next read.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._channel.sendall(struct.pack(">I", len(payload)) + payload)


def descendants(root: int) -> list[int]:
    """All processes below `root`, from one scan of /proc."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - pathlib is not loaded here
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as stat:
                    parent = int(stat.read().rpartition(b")")[2].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(name))
    found: list[int] = []
    waiting = [root]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def kill_everything(deadline_s: float) -> None:
    """Kill and reap all descendants. Gives up after `deadline_s` on those that cannot die.

    They are stopped before they are killed, so that none can fork meanwhile.
    """
    deadline = time.monotonic() + deadline_s
    while time.monotonic() < deadline:
        for number in (signal.SIGSTOP, signal.SIGKILL):
            signal_descendants(number)
        try:
            while os.wait4(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.002)


def signal_descendants(number: int) -> None:
    """Signal all descendants. A pid is opened first and then looked for again, so that a reused one
    is never hit (E6).
    """
    opened: dict[int, int] = {}
    for pid in descendants(os.getpid()):
        with contextlib.suppress(OSError):
            opened[pid] = os.pidfd_open(pid)
    still = set(descendants(os.getpid()))
    for pid, descriptor in opened.items():
        if pid in still:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(descriptor, number)
        os.close(descriptor)


def remove_cgroups(roots: list[str]) -> None:
    """Remove those cgroups that are empty; the kernel refuses the others."""
    for root in roots:
        for path, _directories, _files in os.walk(root, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(path)  # noqa: PTH106 - pathlib is not loaded here


def offer_to_oom() -> None:
    """Raise this process's oom_score_adj. Everybody may raise it, so this works also where the
    agent could not lower its own.
    """
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "r+") as adjustment:
        inherited = int(adjustment.read())
        adjustment.write("0" if inherited < 0 else str(min(inherited + 500, 1000)))


def main() -> None:
    # Handled, not ignored: what is ignored stays ignored in the jobs.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_arguments: None)
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    offer_to_oom()
    ended, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_arguments: None)
    channel = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    with contextlib.suppress(ConnectionResetError):
        Spawner(channel).serve(ended)
    kill_everything(deadline_s=30)
    remove_cgroups(sys.argv[1:])


if __name__ == "__main__":
    main()
