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
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import paramiko
from paramiko.ssh_exception import SSHException

from hostler_hub.drivers.transports.contract import Command, CommandResult
from hostler_hub.drivers.transports.errors import (
    NotWritten,
    OutputTooLarge,
    Refused,
    TransportTimeout,
    Unreachable,
)
from hostler_hub.drivers.transports.ssh.access import SshAccess
from hostler_hub.drivers.transports.ssh.login import Login, LoginMaterial, log_in
from hostler_hub.drivers.transports.ssh.session import (
    NOISE_BYTES,
    Deadline,
    SharedConnection,
    last_line,
    run,
)

SESSIONS = 6
IDLE_S = 120.0
LOGIN_TRIES = 3
# Exclusively, and whole or not at all; the words of the machine say why not.
_PUT = """\
umask 077; LC_ALL=C; export LC_ALL; set -C; : >"$1" || exit 1; set +C
cat >"$1" && [ "$(wc -c <"$1")" -eq "$2" ] && exit 0
rm -f "$1"; exit 1
"""

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
        return await self._call(command.deadline_s, functools.partial(run, command=command))

    async def put(self, path: str, content: bytes, deadline_s: float) -> None:
        """Create a file; see the contract."""
        argv = ["sh", "-c", _PUT, "hostler", path, str(len(content))]
        outcome = await self.run(Command(argv, content, deadline_s))
        if outcome.status:
            raise NotWritten(self.address, f"{path}: {last_line(outcome)}")

    async def fetch(self, path: str, size_bytes: int, deadline_s: float) -> bytes:
        """Read a file; see the contract."""
        argv = ["head", "-c", str(size_bytes + 1), path]
        limit = size_bytes + 1 + NOISE_BYTES  # with what is said on standard error
        outcome = await self.run(Command(argv, b"", deadline_s, output_bytes=limit))
        if outcome.status:
            raise Refused(f"{self.address}: {last_line(outcome)}", sent=True)
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
        deadline = Deadline(time.monotonic() + deadline_s, self.address)
        with self.hold():
            try:
                async with asyncio.timeout(deadline_s), self._sessions:
                    return await self._try_twice(act, deadline)
            except TimeoutError:
                raise TransportTimeout(
                    f"{self.address} did not answer within {deadline_s:g} s", sent=deadline.sent
                ) from None

    async def _try_twice(self, act: Callable[..., T], deadline: Deadline) -> T:
        """Call `act` on the open connection; if that has broken and nothing was sent, repeat on a
        new one.
        """
        try:
            return await self._try(act, deadline)
        except Unreachable as error:
            if error.sent:
                raise
        return await self._try(act, deadline)

    async def _try(self, act: Callable[..., T], deadline: Deadline) -> T:
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


def _log_out_late(future: asyncio.Future[Login]) -> None:
    """Close a connection whose login has succeeded after its caller was cancelled."""
    if not future.cancelled() and future.exception() is None:
        SharedConnection(future.result()).close()
