"""Transport by WinRM, with pywinrm.

Theory of operation. pywinrm blocks, and keeps polling a machine that says nothing. So every call
runs in a thread, in a session of its own, whose sockets are shut down when the call's deadline has
passed: the thread then ends, whatever the machine or the network does. Sessions that ended well are
reused for a while, because logging in takes longer than most commands.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from hostler_hub.drivers.transports.contract import Command, CommandResult
from hostler_hub.drivers.transports.errors import (
    NotWritten,
    OutputTooLarge,
    Refused,
    TransportError,
    TransportTimeout,
    Unreachable,
)
from hostler_hub.drivers.transports.winrm import cmd_line, files
from hostler_hub.drivers.transports.winrm.access import WinrmAccess
from hostler_hub.drivers.transports.winrm.session import Deadline, Material, Session, material_of
from hostler_hub.runtime.errors import SecretRefused
from hostler_hub.runtime.secrets import Secrets

SESSIONS = 6
IDLE_S = 20.0
"""How long an unused session is kept. WinRM keeps a connection for longer, but a device in between
may not."""

T = TypeVar("T")


class WinrmTransport:
    """One machine as one user. Must be used in one event loop."""

    def __init__(self, access: WinrmAccess, secrets: Secrets, threads: ThreadPoolExecutor) -> None:
        self.access = access
        self._secrets = secrets
        self._threads = threads
        self._room = asyncio.Semaphore(SESSIONS)
        self._idle: list[Session] = []
        self._dropping: asyncio.TimerHandle | None = None

    @property
    def address(self) -> str:
        """The machine's address, for messages."""
        return self.access.address

    async def run(self, command: Command) -> CommandResult:
        """Run a command through cmd.exe; see the contract. Raises Refused for an argument with `%`
        or `"`.
        """
        try:
            line = cmd_line.join(command.argv)
        except ValueError as error:
            raise Refused(f"{self.address}: {error}") from None
        act = functools.partial(_run, line=line, command=command)
        return await self._call(command.deadline_s, act)

    async def put(self, path: str, content: bytes, deadline_s: float) -> None:
        """Create a file; see the contract. The machine's Python writes it and checks its digest."""
        command = files.putting(self.access.python, path, content, deadline_s)
        done = await self.run(command)
        if done.status == files.NO_ROOM:
            raise NotWritten(self.address, files.words(done.stderr, command.argv))
        if done.status != 0:
            self._refuse(done, command)

    async def fetch(self, path: str, size_bytes: int, deadline_s: float) -> bytes:
        """Read a file; see the contract."""
        command = files.fetching(self.access.python, path, size_bytes, deadline_s)
        done = await self.run(command)
        if done.status == files.TOO_LARGE:
            text = f"{self.address}: {path} has more than {size_bytes} bytes"
            raise OutputTooLarge(text, sent=True)
        if done.status != 0:
            self._refuse(done, command)
        return files.content_of(done.stdout)

    async def aclose(self) -> None:
        """Close all sessions that are not in use."""
        if self._dropping is not None:
            self._dropping.cancel()
        self._drop_idle()

    def _refuse(self, done: CommandResult, command: Command) -> None:
        if done.status == files.NOT_WHOLE:
            raise Unreachable(f"{self.address}: the content was changed on its way", sent=True)
        said = files.words(done.stderr, command.argv)
        raise Refused(f"{self.address}: {said} (status {done.status})", sent=True)

    async def _call(self, deadline_s: float, act: Callable[[Session, Deadline], T]) -> T:
        deadline = Deadline(time.monotonic() + deadline_s, self.address)
        try:
            async with asyncio.timeout(deadline_s), self._room:
                session = self._take(await self._in_thread(self._present_material))
                if session is not None:
                    # The machine may have dropped it since; a command that was sent stays sent.
                    try:
                        return await self._act(session, deadline, act)
                    except Unreachable as error:
                        if error.sent:
                            raise
                session = await self._in_thread(self._make)
                return await self._act(session, deadline, act)
        except TimeoutError:
            raise TransportTimeout(
                f"{self.address} did not answer within {deadline_s:g} s", sent=deadline.sent
            ) from None

    async def _act(
        self, session: Session, deadline: Deadline, act: Callable[[Session, Deadline], T]
    ) -> T:
        try:
            result = await self._in_thread(functools.partial(act, session, deadline))
        except OutputTooLarge:
            self._put_back(session)
            raise
        except BaseException:
            # Also of a thread that still waits, and need not any longer.
            self._give_up(session)
            raise
        self._put_back(session)
        return result

    def _put_back(self, session: Session) -> None:
        if session.shell_open:  # the call went well, but its end did not
            self._give_up(session)
        else:
            self._keep(session)

    def _give_up(self, session: Session) -> None:
        session.cut()
        self._threads.submit(session.close)
        if session.shell_open:
            end = functools.partial(_end_shell, self.access, self._secrets, session.shell_open)
            self._threads.submit(end)

    def _make(self) -> Session:
        return Session(self.access, self._secrets)

    def _present_material(self) -> Material | None:
        """The credentials of today; None if a secret is not to be had, which a new session
        reports.
        """
        try:
            return material_of(self.access, self._secrets)
        except SecretRefused:
            return None

    def _take(self, present: Material | None) -> Session | None:
        """An idle session whose credentials are those of today, if there is one."""
        before = time.monotonic() - IDLE_S
        while self._idle:
            session = self._idle.pop()
            if session.used_at > before and session.material == present:
                return session
            session.close()
        return None

    def _keep(self, session: Session) -> None:
        session.used_at = time.monotonic()
        self._idle.append(session)
        if self._dropping is not None:
            self._dropping.cancel()
        self._dropping = asyncio.get_running_loop().call_later(IDLE_S, self._drop_idle)

    def _drop_idle(self) -> None:
        idle, self._idle = self._idle, []
        for each in idle:
            each.close()

    async def _in_thread(self, act: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, act)


def _end_shell(access: WinrmAccess, secrets: Secrets, shell: str) -> None:
    """End the shell of a call that was given up; its command would otherwise run until the idle
    timeout.
    """
    with contextlib.suppress(TransportError):
        session = Session(access, secrets)
        session.end_shell(shell)
        session.close()


def _run(session: Session, deadline: Deadline, *, line: str, command: Command) -> CommandResult:
    with session.shell(deadline) as shell:
        if command.sending is not None:
            command.sending()
        deadline.sent = True
        started = session.start(shell, line, deadline)
        session.feed(shell, started, command.content, deadline)
        return session.collect(shell, started, command.output_bytes, deadline)
