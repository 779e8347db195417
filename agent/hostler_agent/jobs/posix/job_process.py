"""How a process that the spawner has forked becomes a job.

It may be forked long before there is a job, so that nobody waits for the fork and for the way into
the cgroups (7 ms and more on an idle machine: the kernel waits until all processors have taken
notice). It becomes one job, or none; it is never used twice.

The order matters. The cgroups, the limits and the mounts take the agent's rights, so they come
first; then the process becomes the job's user for good; then it goes to the working directory and
runs the program, by the rights of that user. Whatever fails, nothing is run: a job never has more
rights than it was to have.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import socket
import stat
import sys
from collections.abc import Iterator
from typing import Any, Callable, NamedTuple, NoReturn, Optional

assert sys.platform != "win32"

from hostler_agent.jobs.posix import frames, libc, view

RLIMIT_LOCKS = 10
"""Kept, inherited and shown by Linux, and otherwise without a meaning since 2.4.25."""

Entries = tuple[tuple[bytes, bytes], ...]


class Identity(NamedTuple):
    """plan.BuildUser, as the frames carry it."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]


class Order(NamedTuple):
    """What is to be started, and how; the fields are those of plan.JobPlan and spawn.Placement.

    Strings are bytes, the environment one block of `NAME=value` with NULs between. `entries` are
    pairs of `cgroup.procs` files: the job's, and the one in that hierarchy that leads out again.
    `mark` is a number that all processes of the job inherit (see `descent`).
    """

    argv: list[bytes]
    block: bytes
    workdir: bytes
    entries: Entries
    pty: bool
    mark: int
    user: Optional[tuple[Any, ...]]
    view: Optional[tuple[Any, ...]]
    no_new_privileges: bool
    forked: bool
    """Whether it takes a process of its own to start it: for all that posix_spawn cannot do."""

    def environment(self) -> dict[bytes, bytes]:
        return dict(item.split(b"=", 1) for item in self.block.split(b"\0") if item)


class Refused(Exception):
    """A preparation failed, so that nothing was run."""

    def __init__(self, error: OSError, doing: str) -> None:
        super().__init__(doing)
        self.errno = error.errno or errno.EIO
        name = error.filename
        where = "" if name is None else f" ({os.fsdecode(name)})"
        self.doing = f"{doing}{where}"


@contextlib.contextmanager
def _doing(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Refused(error, what) from error


IGNORED = (signal.SIGPIPE, signal.SIGXFSZ)
"""By Python; what is ignored would stay so."""


def first_of_path(
    program: bytes, environment: dict[bytes, bytes], start: Callable[[bytes], int]
) -> int:
    """Start the first of the paths at which a program may be, by the job's own PATH. Raises OSError
    with the program's name.
    """
    failure = errno.ENOENT
    paths = [program]
    if b"/" not in program:
        path = environment.get(b"PATH", os.fsencode(os.defpath))
        paths = [os.path.join(one or b".", program) for one in path.split(b":")]  # noqa: PTH118
    for each in paths:
        try:
            return start(each)
        except OSError as error:  # noqa: PERF203 - each is a try of its own
            # As a shell does: a program without permission is what is told, if none runs.
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                failure = error.errno or errno.EIO
    raise OSError(failure, "cannot be started", program)


def write(path: bytes, text: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text)
    finally:
        os.close(descriptor)


def mark(number: int) -> None:
    """Set the mark that every process started from here inherits."""
    # Refused where somebody has bounded what bounds nothing: there is no mark then.
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(RLIMIT_LOCKS, (number, resource.getrlimit(RLIMIT_LOCKS)[1]))


class JobProcess:
    """This process, which is a fork of the spawner."""

    def __init__(
        self,
        channel: socket.socket,
        entries: Entries,
        oom_score: bytes,
        going: Callable[[], None],
    ) -> None:
        """`channel` leads to the spawner, `going` tells it that a program is about to be run.
        `entries` are entered ahead.
        """
        self._channel = channel
        self._oom_score = oom_score
        self._ahead = entries
        self._entered: set[bytes] = set()
        self._namespace = view.Namespace()
        self._going = going

    def run(self, *, namespace: bool) -> NoReturn:
        """Wait for an order, and carry it out. A spawner that is gone gives none. `namespace`: take
        a mount namespace ahead.
        """
        try:
            os.setsid()
            if self._oom_score:
                with contextlib.suppress(OSError):
                    write(b"/proc/self/oom_score_adj", self._oom_score)
            # What fails ahead is tried again, and told, when there is an order.
            with contextlib.suppress(OSError):
                self._enter(self._ahead)
            if namespace:
                self._namespace.enter()
            received = frames.receive(self._channel)
            if received is not None:
                frame, descriptors = received
                self._carry_out(Order(*frame), descriptors)
        except Refused as refused:
            self._tell((refused.errno, None, refused.doing))
        except OSError as error:
            culprit = None if error.filename is None else os.fsencode(error.filename)
            self._tell((error.errno or errno.EIO, culprit, None))
        except BaseException as error:  # noqa: BLE001 - a defect; nobody else would ever hear of it
            self._tell((errno.EIO, None, f"preparing it ({type(error).__name__}: {error})"))
        finally:
            os._exit(127)

    def _tell(self, failure: tuple[Any, ...]) -> None:
        with contextlib.suppress(OSError):
            frames.send(self._channel, ("failed", *failure))

    def _carry_out(self, order: Order, descriptors: list[int]) -> NoReturn:
        for number in (*IGNORED, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        with _doing("entering its cgroup"):
            self._enter(order.entries)
        mark(order.mark)
        with _doing("taking its streams"):
            _take_streams(descriptors[:3], order.pty)
        with _doing("making its view of the files"):
            if order.view is None:
                self._namespace.leave()
            else:
                self._namespace.show(view.Wanted(*order.view), descriptors[3:])
        if order.user is not None:
            identity = Identity(*order.user)
            with _doing(f"becoming user {identity.name}"):
                _become(identity)
        if order.no_new_privileges:
            with _doing("giving up new privileges"):
                view.no_new_privileges()
        os.chdir(order.workdir)
        if self._namespace.missing:
            frames.send(self._channel, ("missing", self._namespace.missing))
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        environment = order.environment()
        self._going()
        first_of_path(
            order.argv[0],
            environment,
            lambda path: os.execve(path, order.argv, environment),  # noqa: S606
        )
        raise AssertionError("a process that runs another program does not come back")

    def _enter(self, entries: Entries) -> None:
        for inside, _home in entries:
            if inside not in self._entered:
                write(inside, b"0")
                self._entered.add(inside)


def _take_streams(descriptors: list[int], pty: bool) -> None:
    if pty:
        # Opened by the leader of a session without one, a terminal becomes its controlling one.
        terminal = os.open(os.ttyname(descriptors[0]), os.O_RDWR)
        descriptors = [terminal] * 3
    for theirs, ours in enumerate(descriptors):
        os.dup2(ours, theirs)


def _give_streams(uid: int) -> None:
    """Let the user open its streams anew, as by /dev/stdout. Who may not give files away cannot."""
    for descriptor in range(3):
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISFIFO(mode) or (stat.S_ISCHR(mode) and os.isatty(descriptor)):
            with contextlib.suppress(PermissionError):
                os.fchown(descriptor, uid, -1)


def _become(identity: Identity) -> None:
    """Become that user for good. Raises OSError; then this process must run nothing."""
    if identity.uid == 0:
        raise PermissionError(errno.EPERM, "root is no user for builds")
    _give_streams(identity.uid)
    libc.leave_session_keyring()  # or it would possess the agent's keys
    os.setgroups(identity.groups)
    os.setresgid(identity.gid, identity.gid, identity.gid)
    os.setresuid(identity.uid, identity.uid, identity.uid)
    view.drop_capabilities()
    ids = (*os.getresuid(), *os.getresgid())
    if ids != (identity.uid,) * 3 + (identity.gid,) * 3 or set(os.getgroups()) != set(
        identity.groups
    ):
        raise PermissionError(errno.EPERM, "the kernel kept some of the agent's ids")
