"""Transport by SSH, with fabric and paramiko.

Theory of operation. Both libraries block, so every call runs in a thread, and ends there by itself:
the timeout of each wait is what is left of the call's deadline. One connection serves all calls to
a machine, six at a time (sshd allows ten sessions). It is opened anew when it has broken, and
closed when it has been idle for a while. A call that cannot use the connection only retires it:
other calls may still be using it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import select
import shlex
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import fabric
import paramiko
from paramiko.ssh_exception import SSHException

from hostler_hub.drivers.transports.contract import Command, CommandResult
from hostler_hub.drivers.transports.errors import (
    OutputTooLarge,
    Refused,
    TransportError,
    TransportTimeout,
    Unreachable,
)
from hostler_hub.drivers.transports.ssh.access import SshAccess
from hostler_hub.drivers.transports.ssh.login import LoginMaterial, log_in, log_out, translate
from hostler_hub.lifecycle.backoff import Backoff

SESSIONS = 6
SESSION_PAUSES_S = Backoff(first_s=0.05, longest_s=0.8).delays_s(5)
IDLE_S = 120.0
LOGIN_TRIES = 3
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
        self._shared: _SharedConnection | None = None
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
        await self._call(deadline_s, functools.partial(_put, path=path, content=content))

    async def fetch(self, path: str, size_bytes: int, deadline_s: float) -> bytes:
        """Read a file; see the contract."""
        return await self._call(deadline_s, functools.partial(_fetch, path=path, size=size_bytes))

    async def connected(self) -> paramiko.Transport:
        """The open paramiko transport, for tunnels. Must be used within `hold`."""
        return (await self._connect()).transport

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
        shared = await self._connect()
        shared.users += 1
        try:
            work = functools.partial(act, shared, deadline)
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except (Unreachable, TransportTimeout, asyncio.CancelledError) as error:
            # A call that was cancelled before its deadline says nothing about the connection.
            tried = deadline.is_over or not isinstance(error, asyncio.CancelledError)
            if tried and not deadline.sent:
                self._retire(shared)
            raise
        finally:
            shared.users -= 1
            if shared.retired and not shared.users:
                shared.close()

    async def _connect(self) -> _SharedConnection:
        async with self._opening:
            if self._shared is None or not self._shared.connection.is_connected:
                self._drop()
                login = asyncio.get_running_loop().run_in_executor(self._threads, self._log_in)
                try:
                    self._shared = _SharedConnection(await asyncio.shield(login))
                except asyncio.CancelledError:
                    login.add_done_callback(_log_out_late)
                    raise
            return self._shared

    def _log_in(self) -> fabric.Connection:
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

    def _retire(self, shared: _SharedConnection) -> None:
        shared.retired = True
        if self._shared is shared:
            self._shared = None

    def _drop(self) -> None:
        shared, self._shared = self._shared, None
        if shared is not None:
            shared.close()


@dataclass(eq=False)
class _SharedConnection:
    """A connection and the number of calls that use it. Threads add and remove their `sessions`;
    `opened` counts all sessions ever opened.
    """

    connection: fabric.Connection
    sessions: set[paramiko.Channel] = field(default_factory=set)
    opened: int = 0
    users: int = 0
    retired: bool = False

    @property
    def transport(self) -> paramiko.Transport:
        return self.connection.transport

    def close(self) -> None:
        """Close the connection in a thread of its own, because paramiko and the network may block
        it.
        """
        ending = functools.partial(log_out, self.connection)
        threading.Thread(target=ending, daemon=True, name="logout").start()


def _log_out_late(future: asyncio.Future[fabric.Connection]) -> None:
    """Close a connection whose login has succeeded after its caller was cancelled."""
    if not future.cancelled() and future.exception() is None:
        _SharedConnection(future.result()).close()


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


def _run(shared: _SharedConnection, deadline: _Deadline, *, command: Command) -> CommandResult:
    words = shlex.join(command.argv)
    try:
        with _session(shared, deadline) as channel:
            if command.sending is not None:
                command.sending()
            deadline.sent = True
            channel.exec_command(words)
            _feed(channel, command.content)
            return _collect(channel, deadline, command.output_bytes)
    except (SSHException, EOFError, OSError) as error:
        raise _broken(error, deadline) from error


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
def _session(shared: _SharedConnection, deadline: _Deadline) -> Iterator[paramiko.Channel]:
    channel = _open_session(shared, deadline)
    shared.sessions.add(channel)
    shared.opened += 1
    try:
        channel.settimeout(deadline.left_s())
        yield channel
    finally:
        channel.close()
        shared.sessions.discard(channel)


def _open_session(shared: _SharedConnection, deadline: _Deadline) -> paramiko.Channel:
    """Open a session. sshd may refuse one: it counts a session until it has reaped its processes,
    shortly after we close it, and may allow fewer sessions than we want. So a refused request is
    repeated until it succeeds, or is refused while no other session of ours is open. Raises
    Refused.
    """
    while True:
        opened, others, refusal = shared.opened, False, None
        for pause_s in (*SESSION_PAUSES_S, 0.0):
            try:
                return shared.transport.open_session(timeout=deadline.left_s())
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


def _put(shared: _SharedConnection, deadline: _Deadline, *, path: str, content: bytes) -> None:
    with _sftp(shared, deadline) as sftp, sftp.open(path, "wx") as file:
        sftp.chmod(path, 0o600)
        try:
            # Not pipelined, where paramiko would not tell of a write that failed.
            for start in range(0, len(content), _CHUNK_BYTES):
                deadline.left_s()
                file.write(content[start : start + _CHUNK_BYTES])
        except OSError as error:
            with contextlib.suppress(OSError):
                sftp.remove(path)
            if error.errno is not None:
                raise
            # The protocol has no word for a full disk but this one.
            text = f"{deadline.address}: cannot write {path}: {error} (is the disk full?)"
            raise Refused(text, sent=True) from error


def _fetch(shared: _SharedConnection, deadline: _Deadline, *, path: str, size: int) -> bytes:
    with _sftp(shared, deadline) as sftp, sftp.open(path, "rb") as file:
        content: bytes = file.read(size + 1)
    if len(content) > size:
        raise OutputTooLarge(f"{deadline.address}: {path} has more than {size} bytes", sent=True)
    return content


@contextlib.contextmanager
def _sftp(shared: _SharedConnection, deadline: _Deadline) -> Iterator[paramiko.SFTPClient]:
    """Open an SFTP client on a session of its own, so that threads share none."""
    try:
        with _session(shared, deadline) as channel:
            deadline.sent = True
            channel.invoke_subsystem("sftp")
            yield paramiko.SFTPClient(channel)
    except (PermissionError, FileNotFoundError) as error:
        raise Refused(f"{deadline.address}: {error.strerror or error}", sent=True) from error
    except (SSHException, EOFError, OSError) as error:
        raise _broken(error, deadline) from error


def _broken(error: Exception, deadline: _Deadline) -> TransportError:
    if isinstance(error, TransportError):
        return error
    if isinstance(error, TimeoutError):
        text = f"{deadline.address} did not answer in time"
        return TransportTimeout(text, sent=deadline.sent)
    if isinstance(error, OSError) and error.errno is None and not isinstance(error, EOFError):
        # What a server of SFTP says in words: no space, a file of that name, ...
        return Refused(f"{deadline.address}: {error}", sent=deadline.sent)
    ours = translate(error, deadline.address)
    ours.sent = deadline.sent
    return ours
