"""Transport by SSH, with paramiko.

Theory of operation. paramiko blocks, so every call runs in a thread, and ends there by itself:
the timeout of each wait is what is left of the call's deadline. One connection serves all calls to
a machine, six at a time (sshd allows ten sessions). It is opened anew when it has broken, and
closed when it has been idle for a while. A call that cannot use the connection only retires it:
other calls and tunnels may still be using it.

Files go over as the input and output of commands, and not by SFTP, which not every server has, and
which start-up files that print something break.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import select
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import paramiko
from paramiko.ssh_exception import SSHException

from hostler_hub.drivers.transports.contract import Command, CommandResult
from hostler_hub.drivers.transports.errors import (
    NotWritten,
    OutputTooLarge,
    Refused,
    TransportError,
    TransportTimeout,
    Unreachable,
)
from hostler_hub.drivers.transports.ssh.access import SshAccess
from hostler_hub.drivers.transports.ssh.channels import OrderedChannel, in_order
from hostler_hub.drivers.transports.ssh.login import Login, LoginMaterial, log_in
from hostler_hub.drivers.transports.ssh.shell import BOOTSTRAP, CommandLine
from hostler_hub.drivers.transports.ssh.translation import translate
from hostler_hub.lifecycle.backoff import Backoff

SESSIONS = 6
SESSION_PAUSES_S = Backoff(first_s=0.05, longest_s=0.8).delays_s(5)
IDLE_S = 120.0
LOGIN_TRIES = 3
NOISE_BYTES = 64 * 1024
_SAID_BYTES = 400
# Exclusively, and whole or not at all; the words of the machine say why not.
_PUT = """\
umask 077; LC_ALL=C; export LC_ALL; set -C; : >"$1" || exit 1; set +C
cat >"$1" && [ "$(wc -c <"$1")" -eq "$2" ] && exit 0
rm -f "$1"; exit 1
"""
_CHUNK_BYTES = 64 * 1024

T = TypeVar("T")


class SshTransport:
    """One machine as one user. Must be used in one event loop."""

    def __init__(
        self, access: SshAccess, material: LoginMaterial, threads: ThreadPoolExecutor
    ) -> None:
        self.access = access
        self._material = material
        self._threads = threads
        self._shared: SharedConnection | None = None
        self._opening = asyncio.Lock()
        self._sessions = asyncio.Semaphore(SESSIONS)
        self._in_use = 0
        self._idle: asyncio.TimerHandle | None = None

    @property
    def address(self) -> str:
        """The machine's address, for messages."""
        return self.access.target.address

    async def run(self, command: Command) -> CommandResult:
        """Run a command to its end; see the contract."""
        return await self._call(command.deadline_s, functools.partial(_run, command=command))

    async def put(self, path: str, content: bytes, deadline_s: float) -> None:
        """Create a file; see the contract."""
        argv = ["sh", "-c", _PUT, "hostler", path, str(len(content))]
        outcome = await self.run(Command(argv, content, deadline_s))
        if outcome.status:
            raise NotWritten(self.address, f"{path}: {_last_line(outcome)}")

    async def fetch(self, path: str, size_bytes: int, deadline_s: float) -> bytes:
        """Read a file; see the contract."""
        argv = ["head", "-c", str(size_bytes + 1), path]
        limit = size_bytes + 1 + NOISE_BYTES  # with what is said on standard error
        outcome = await self.run(Command(argv, b"", deadline_s, output_bytes=limit))
        if outcome.status:
            raise Refused(f"{self.address}: {_last_line(outcome)}", sent=True)
        if len(outcome.stdout) > size_bytes:
            text = f"{self.address}: {path} has more than {size_bytes} bytes"
            raise OutputTooLarge(text, sent=True)
        return outcome.stdout

    async def connected(self) -> paramiko.Transport:
        """Log in unless a connection is open; return the connection. Raises TransportError."""
        return (await self._connect()).transport

    async def borrow(self) -> SharedConnection:
        """The open connection, for tunnels. It is kept open, unless it breaks, until it is given
        back. Raises TransportError.
        """
        shared = await self._connect()
        shared.users += 1
        return shared

    def give_back(self, shared: SharedConnection) -> None:
        """End the use of a connection that was borrowed."""
        shared.users -= 1
        if shared.retired and not shared.users:
            shared.close()

    def renew(self) -> None:
        """Have the next call log in anew: the machine may be another one to those who log in now,
        with another configuration of sshd, other groups and limits. Running calls go on.
        """
        shared = self._shared
        if shared is not None:
            shared.users += 1
            self._retire(shared)
            self.give_back(shared)

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Keep the connection open while it is idle."""
        self._in_use += 1
        if self._idle is not None:
            self._idle.cancel()
        try:
            yield
        finally:
            self._in_use -= 1
            if not self._in_use:
                self._idle = asyncio.get_running_loop().call_later(IDLE_S, self._drop)

    async def aclose(self) -> None:
        """Close the connection."""
        if self._idle is not None:
            self._idle.cancel()
        self._drop()

    async def _call(self, deadline_s: float, act: Callable[..., T]) -> T:
        deadline = _Deadline(time.monotonic() + deadline_s, self.address)
        with self.hold():
            try:
                async with asyncio.timeout(deadline_s), self._sessions:
                    return await self._try_twice(act, deadline)
            except TimeoutError:
                raise TransportTimeout(
                    f"{self.address} did not answer within {deadline_s:g} s", sent=deadline.sent
                ) from None

    async def _try_twice(self, act: Callable[..., T], deadline: _Deadline) -> T:
        """Call `act` on the open connection; if that has broken and nothing was sent, repeat on a
        new one.
        """
        try:
            return await self._try(act, deadline)
        except Unreachable as error:
            if error.sent:
                raise
        return await self._try(act, deadline)

    async def _try(self, act: Callable[..., T], deadline: _Deadline) -> T:
        shared = await self.borrow()
        try:
            work = functools.partial(act, shared, deadline)
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except (Unreachable, TransportTimeout, asyncio.CancelledError) as error:
            # A call that was cancelled before its deadline says nothing about the connection.
            tried = deadline.is_over or not isinstance(error, asyncio.CancelledError)
            if tried and not deadline.sent:
                shared.is_suspect = True
                self._retire(shared)
            raise
        finally:
            self.give_back(shared)

    async def _connect(self) -> SharedConnection:
        async with self._opening:
            if self._shared is None or not self._shared.login.is_open:
                self._drop()
                login = asyncio.get_running_loop().run_in_executor(self._threads, self._log_in)
                try:
                    self._shared = SharedConnection(await asyncio.shield(login))
                except asyncio.CancelledError:
                    login.add_done_callback(_log_out_late)
                    raise
            return self._shared

    def _log_in(self) -> Login:
        """Log in. Repeated if sshd drops the login, as it does at random when many arrive
        at once.
        """
        for tries_left in reversed(range(LOGIN_TRIES)):
            try:
                return log_in(self.access, self._material)
            except Unreachable as error:
                if not tries_left or not isinstance(error.__cause__, (SSHException, EOFError)):
                    raise
            time.sleep(random.uniform(0.1, 0.5))  # noqa: S311 - only to be apart from others
        raise AssertionError

    def _retire(self, shared: SharedConnection) -> None:
        shared.retired = True
        if self._shared is shared:
            self._shared = None

    def _drop(self) -> None:
        shared, self._shared = self._shared, None
        if shared is not None:
            shared.close()


@dataclass(eq=False)
class SharedConnection:
    """A connection and the number of calls and tunnels that use it. Threads add and remove their
    `sessions`; `opened` counts all sessions ever opened. A retired one takes no new calls.
    """

    login: Login
    sessions: set[paramiko.Channel] = field(default_factory=set)
    opened: int = 0
    users: int = 0
    retired: bool = False
    is_suspect: bool = False

    @property
    def is_usable(self) -> bool:
        """Whether it is open, and no call has found it silent."""
        return self.login.is_open and not self.is_suspect

    @property
    def transport(self) -> paramiko.Transport:
        """paramiko's connection to the machine itself."""
        return self.login.transport

    def close(self) -> None:
        """Close the connection in a thread of its own, because paramiko and the network may block
        it.
        """
        threading.Thread(target=self.login.close, daemon=True, name="logout").start()


def _log_out_late(future: asyncio.Future[Login]) -> None:
    """Close a connection whose login has succeeded after its caller was cancelled."""
    if not future.cancelled() and future.exception() is None:
        SharedConnection(future.result()).close()


@dataclass
class _Deadline:
    """The end of a call, for the thread that runs it. `sent` becomes True once the command may have
    reached the machine.
    """

    at: float
    address: str
    sent: bool = False

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self.at

    def left_s(self) -> float:
        """The seconds left. Raises TransportTimeout if there are none."""
        left = self.at - time.monotonic()
        if left <= 0:
            raise TransportTimeout(f"{self.address} did not answer in time", sent=self.sent)
        return left


def _run(shared: SharedConnection, deadline: _Deadline, *, command: Command) -> CommandResult:
    line, limit = CommandLine(command.argv), command.output_bytes
    try:
        with _session(shared, deadline) as channel:
            if command.sending is not None:
                command.sending()
            deadline.sent = True
            channel.exec_command(BOOTSTRAP)
            _feed(channel, line.input + command.content)
            outcome = _collect(channel, deadline, limit + NOISE_BYTES)
    except (SSHException, EOFError, OSError) as error:
        raise _broken(error, deadline) from error
    own = line.output(outcome.stdout)
    if own is None:
        raise _not_started(outcome, deadline)
    _check_size(len(own) + len(outcome.stderr), limit, deadline)
    return CommandResult(outcome.status, own, outcome.stderr)


def _not_started(outcome: CommandResult, deadline: _Deadline) -> Refused:
    """The exception for a login shell that did not read the command from its input."""
    deadline.sent = False
    return Refused(
        f"{deadline.address}: the login shell of the account runs no commands, or its start-up "
        f"files end it (exit status {outcome.status}): {_last_line(outcome)}"
    )


def _last_line(outcome: CommandResult) -> str:
    """The last line of a command's standard error, or of its standard output if that is empty."""
    text = (outcome.stderr.strip() or outcome.stdout).decode("utf-8", "replace").strip()
    return text.rpartition("\n")[2][-_SAID_BYTES:]


def _feed(channel: paramiko.Channel, content: bytes) -> None:
    """Send the command's input. If the command exits before reading all of it, its exit status is
    reported, not the broken pipe.
    """
    try:
        channel.sendall(content)
        channel.shutdown_write()
    except OSError:
        if not channel.closed:
            raise


@contextlib.contextmanager
def _session(shared: SharedConnection, deadline: _Deadline) -> Iterator[paramiko.Channel]:
    channel = _open_session(shared, deadline)
    shared.sessions.add(channel)
    shared.opened += 1
    try:
        channel.settimeout(deadline.left_s())
        yield channel
    finally:
        channel.close()
        shared.sessions.discard(channel)


def _open_session(shared: SharedConnection, deadline: _Deadline) -> OrderedChannel:
    """Open a session. sshd may refuse one: it counts a session until it has reaped its processes,
    shortly after we close it, and may allow fewer sessions than we want. So a refused request is
    repeated until it succeeds, or is refused while no other session of ours is open. Raises
    Refused.
    """
    while True:
        opened, others, refusal = shared.opened, False, None
        for pause_s in (*SESSION_PAUSES_S, 0.0):
            try:
                return in_order(shared.transport.open_session(timeout=deadline.left_s()))
            except SSHException as error:
                # If several requests are refused at once, paramiko reports the reason to one; the
                # others get the same exception as for a broken connection.
                if not shared.transport.is_active():
                    raise
                refusal = error
            others = others or bool(shared.sessions)
            time.sleep(min(pause_s, deadline.left_s()))
        if not others and shared.opened == opened:
            text = f"{deadline.address}: sshd opens no session: {refusal} (see its MaxSessions)"
            raise Refused(text) from refusal


def _collect(channel: paramiko.Channel, deadline: _Deadline, limit: int) -> CommandResult:
    stdout, stderr = bytearray(), bytearray()
    poll = select.poll()
    poll.register(channel.fileno(), select.POLLIN)
    open_still = True
    while open_still:
        # paramiko's descriptor says that either stream has something, or that both are over.
        poll.poll(deadline.left_s() * 1000)
        open_still = not (channel.eof_received or channel.closed)
        while channel.recv_ready():
            stdout += channel.recv(_CHUNK_BYTES)
            _check_size(len(stdout) + len(stderr), limit, deadline)
        while channel.recv_stderr_ready():
            stderr += channel.recv_stderr(_CHUNK_BYTES)
            _check_size(len(stdout) + len(stderr), limit, deadline)
    if not channel.status_event.wait(deadline.left_s()):
        deadline.left_s()
    if channel.exit_status < 0:
        raise Unreachable(f"{deadline.address}: the connection was lost", sent=True)
    return CommandResult(channel.exit_status, bytes(stdout), bytes(stderr))


def _check_size(size: int, limit: int, deadline: _Deadline) -> None:
    if size > limit:
        raise OutputTooLarge(f"{deadline.address} printed more than {limit} bytes", sent=True)


def _broken(error: Exception, deadline: _Deadline) -> TransportError:
    if isinstance(error, TransportError):
        return error
    if isinstance(error, TimeoutError):
        text = f"{deadline.address} did not answer in time"
        return TransportTimeout(text, sent=deadline.sent)
    ours = translate(error, deadline.address)
    ours.sent = deadline.sent
    return ours
