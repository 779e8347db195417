"""The spawner: a small process beside the agent that starts jobs and reaps them.

Run by the agent as a program of its own, from this source, with nothing but the standard library.

Why a process of its own. A job must be in its cgroup before it can fork (E4), and Python can do
that in the child only (`preexec_fn`: 2.6 to 4.5 ms a command measured in an agent of 23 to 65 MiB,
and unsafe beside threads) or through a shell (1.5 ms, but dash drops variables whose names are no
identifiers). This process has one thread and no ballast. It has two ways to start a job:
- A process that it has forked ahead, which waits in the cgroups of the next job (see
  `job_process`). The only way for a job with a user, a view of the files or limits of its own: for
  those a process is forked on the spot if none waits.
- posix_spawn: it steps into the job's cgroup itself, spawns, and steps out again. The child is
  inside from its first instruction. Under load, when nothing was forked ahead, this is quickest.

What it also gives:
- It is the subreaper of everything that jobs leave behind, so no process of a job ever gets away
  from the agent's descendants, whatever the containment.
- It is the only parent and the only one that reaps, so a pid that it signals is never a stranger's
  (E6).
- When the agent dies, by whatever signal, the socket closes and the spawner kills all jobs.
- The oom_score_adj of all jobs is above its own and the agent's, so that the kernel takes a build
  before either: 0 beneath an agent that could guard itself, else 500 more than the agent's own.

The protocol: `frames` over a socket pair whose end is the standard input.

    agent -> spawner   ("prepare", place, entries, mark, namespace)
                       fork a process ahead into these cgroups, and perhaps a mount namespace;
                       place 0 is for any job that takes a process of its own and has no place
                       ("spawn", token, place, order)
                       and descriptors: the job's standard input, output and error, and the
                       namespaces that it enters. `place` is a prepared one or 0; `order` is that of
                       `job_process`
                       ("signal", token, signal number)     to the job's process group
    spawner -> agent   ("started", token, pid, missing)     see `view` for what may be missing
                       ("failed", token, errno, file name or None, what was being done or None)
                       ("exited", token, wait status, CPU seconds, peak resident KiB)

The command line has the cgroups above the jobs', to be removed when the agent is dead.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import os
import resource
import select
import signal
import socket
import sys
from typing import Any, NoReturn

assert sys.platform != "win32"

from hostler_agent.jobs.posix import frames, teardown
from hostler_agent.jobs.posix.forked import Forked, Gone, Start
from hostler_agent.jobs.posix.job_process import (
    IGNORED,
    RLIMIT_LOCKS,
    Entries,
    JobProcess,
    Order,
    first_of_path,
    mark,
    write,
)

_PR_SET_CHILD_SUBREAPER = 36
_SPARE = 2
"""The most processes that wait without a place."""


class OomScore:
    """The spawner's own oom_score_adj, and that of the jobs. Everybody may raise his, so this works
    also where the agent could not lower its own; and may lower it again to where it was.
    """

    def __init__(self) -> None:
        self._own = self.of_jobs = b""
        with contextlib.suppress(OSError):
            with open("/proc/self/oom_score_adj", "rb") as adjustment:
                own = int(adjustment.read())
            self._own = b"%d" % own
            self.of_jobs = b"0" if own < 0 else b"%d" % min(own + 500, 1000)

    def take_jobs(self) -> None:
        self._set(self.of_jobs)

    def take_own(self) -> None:
        self._set(self._own)

    def _set(self, score: bytes) -> None:
        if score:
            with contextlib.suppress(OSError):
                write(b"/proc/self/oom_score_adj", score)


class Spawner:
    def __init__(self, channel: socket.socket, child_ended: int, wake: int) -> None:
        """`child_ended` becomes readable with each SIGCHLD; `wake` is its other end."""
        self._channel = channel
        self._child_ended = child_ended
        self._wake = wake
        self._homes: dict[bytes, int] = {}
        self._own_mark = resource.getrlimit(RLIMIT_LOCKS)[0]
        self._oom = OomScore()
        self._tokens: dict[int, int] = {}
        self._pids: dict[int, int] = {}
        self._waiting: dict[int, Forked] = {}
        """The processes that were forked ahead, by place."""
        self._spare: list[Forked] = []
        """Those that were forked ahead for no place: they enter their cgroups when a job comes."""
        self._starting: dict[int, tuple[Start, Forked]] = {}
        """The processes that are about to run a job's program, by descriptor."""
        self._poll = select.poll()

    def serve(self) -> None:
        """Serve the agent until it is gone."""
        self._poll.register(self._channel, select.POLLIN)
        self._poll.register(self._child_ended, select.POLLIN)
        while True:
            for descriptor, _events in self._poll.poll():
                if descriptor == self._child_ended:
                    os.read(descriptor, 4096)
                    self._reap()
                elif descriptor in self._starting:
                    self._hear(descriptor)
                elif descriptor == self._channel.fileno():
                    received = frames.receive(self._channel)
                    if received is None:
                        return
                    self._handle(*received)
                    break  # what else was ready may by now be another's descriptor

    def _reap(self) -> None:
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._hear_last(pid)
            token = self._tokens.pop(pid, None)
            if token is not None:
                self._pids.pop(token)
                cpu_s = usage.ru_utime + usage.ru_stime
                self._send(("exited", token, status, cpu_s, usage.ru_maxrss))

    def _hear_last(self, pid: int) -> None:
        """Take what a process that has ended had to say; it may have waited for an order still."""
        for place, forked in list(self._waiting.items()):
            if forked.pid == pid:
                self._waiting.pop(place).channel.close()
        for forked in [one for one in self._spare if one.pid == pid]:
            self._spare.remove(forked)
            forked.channel.close()
        for descriptor, (_start, forked) in list(self._starting.items()):
            while forked.pid == pid and descriptor in self._starting:
                self._hear(descriptor)

    def _handle(self, frame: tuple[Any, ...], descriptors: list[int]) -> None:
        kind, number, *rest = frame
        if kind == "prepare":
            entries, its_mark, namespace = rest
            if not number and len(self._spare) >= _SPARE:
                return
            with contextlib.suppress(OSError):  # the next job is started otherwise
                forked = self._fork(entries, its_mark, namespace=namespace)
                if number:
                    self._waiting[number] = forked
                else:
                    self._spare.append(forked)
        elif kind == "spawn":
            place, order = rest
            start = Start(number, Order(*order), descriptors, is_first=True)
            waiting = self._waiting.pop(place, None)
            if waiting is None and start.order.forked and self._spare:
                waiting = self._spare.pop(0)
            if waiting is None or not self._give(waiting, start):
                self._start(start._replace(is_first=False))
        elif kind == "signal" and number in self._pids:
            # It has a session, so a process group, of its own since before its exec.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._pids[number], rest[0])

    def _start(self, start: Start) -> None:
        """Start a job for which no process waits."""
        token, order = start.token, start.order
        try:
            if not order.forked:
                pid = self._spawn(order, start.descriptors)
                self._started(token, pid)
                self._send(("started", token, pid, []))
            elif self._give(self._fork((), order.mark, namespace=False), start):
                return
            else:
                self._send(_killed(token))
        except OSError as error:
            culprit = None if error.filename is None else os.fsencode(error.filename)
            self._send(("failed", token, error.errno or errno.EIO, culprit, None))
        start.close()

    # --- by a forked process ----------------------------------------------------------------------

    def _fork(self, entries: Entries, number: int, *, namespace: bool) -> Forked:
        """Fork a process that waits for an order. It has its mark from the first moment."""
        ours, theirs = socket.socketpair()
        gone = Gone()
        try:
            mark(number)
            pid = os.fork()
            if pid == 0:
                try:
                    ours.close()  # or it would not be told of the spawner's end
                    process = JobProcess(theirs, entries, self._oom.of_jobs, gone.set)
                    self._be_forked(process, namespace=namespace)
                finally:
                    os._exit(127)  # whatever happens: it must not go on as a second spawner
        except OSError:
            ours.close()
            raise
        finally:
            mark(self._own_mark)
            theirs.close()
        return Forked(pid, ours, gone)

    def _be_forked(self, process: JobProcess, *, namespace: bool) -> NoReturn:
        """Go on as the forked process. What is only the spawner's is closed: the end of a socket is
        seen only when nobody has it any more.
        """
        signal.set_wakeup_fd(-1)
        for start, forked in self._starting.values():
            start.close()
            forked.channel.close()
        for forked in (*self._waiting.values(), *self._spare):
            forked.channel.close()
        for descriptor in (self._child_ended, self._wake, *self._homes.values()):
            os.close(descriptor)
        self._channel.close()
        process.run(namespace=namespace)

    def _give(self, forked: Forked, start: Start) -> bool:
        """Have a forked process start a job. Returns False if it is dead."""
        if not forked.give(start.order, start.descriptors):
            return False
        self._started(start.token, forked.pid)
        self._starting[forked.channel.fileno()] = (start, forked)
        self._poll.register(forked.channel, select.POLLIN)
        return True

    def _hear(self, descriptor: int) -> None:
        start, forked = self._starting[descriptor]
        if forked.hear():
            return
        self._poll.unregister(descriptor)
        del self._starting[descriptor]
        if forked.ran:
            self._send(("started", start.token, forked.pid, forked.missing))
            start.close()
            return
        self._pids.pop(self._tokens.pop(forked.pid), None)
        if forked.failure is None and start.is_first:
            # Killed while it waited, or just after, so that nothing was run: in another way, then.
            self._start(start._replace(is_first=False))
            return
        failure = forked.failure
        self._send(_killed(start.token) if failure is None else ("failed", start.token, *failure))
        start.close()

    def _started(self, token: int, pid: int) -> None:
        self._tokens[pid] = token
        self._pids[token] = pid

    # --- by posix_spawn -------------------------------------------------------------------------

    def _spawn(self, order: Order, descriptors: list[int]) -> int:
        """Start a program from here. Returns its pid. Raises OSError."""
        actions = _file_actions(descriptors, order.pty)
        environment = order.environment()
        try:
            for inside, _home in order.entries:
                write(inside, b"0")
            os.chdir(order.workdir)
            mark(order.mark)
            self._oom.take_jobs()
            return first_of_path(
                order.argv[0],
                environment,
                lambda path: os.posix_spawn(
                    path,
                    order.argv,
                    environment,
                    file_actions=actions,
                    setsid=True,
                    setsigmask=(),
                    setsigdef=IGNORED,
                ),
            )
        finally:
            self._oom.take_own()
            mark(self._own_mark)
            os.chdir("/")
            self._return(order.entries)

    def _return(self, entries: Entries) -> None:
        """Leave the job's cgroups, through files that stay open."""
        for _inside, home in entries:
            if home not in self._homes:
                self._homes[home] = os.open(home, os.O_WRONLY | os.O_CLOEXEC)
            os.pwrite(self._homes[home], b"0", 0)

    def _send(self, frame: tuple[Any, ...]) -> None:
        # A dead agent is noticed by the next read.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            frames.send(self._channel, frame)


def _killed(token: int) -> tuple[Any, ...]:
    return ("failed", token, errno.EIO, None, "its process was killed before it ran anything")


def _file_actions(descriptors: list[int], pty: bool) -> list[tuple[Any, ...]]:
    if not pty:
        return [(os.POSIX_SPAWN_DUP2, ours, theirs) for theirs, ours in enumerate(descriptors)]
    # Opened by the leader of a session without one, a terminal becomes its controlling terminal.
    name = os.ttyname(descriptors[0])
    return [
        (os.POSIX_SPAWN_OPEN, 0, name, os.O_RDWR, 0),
        (os.POSIX_SPAWN_DUP2, 0, 1),
        (os.POSIX_SPAWN_DUP2, 0, 2),
    ]


def main() -> None:
    # Handled, not ignored: what is ignored stays ignored in the jobs.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_arguments: None)
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    ended, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_arguments: None)
    channel = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    # Nothing of what is there now is looked at again, and so not copied in the forked processes.
    gc.freeze()
    with contextlib.suppress(ConnectionResetError):
        Spawner(channel, ended, wake).serve()
    teardown.kill_everything(deadline_s=30)
    teardown.remove_cgroups(sys.argv[1:])
