"""One call on a connection: a session of its own, in which a command runs.

Everything here blocks, in a thread of the caller's, until the call's deadline at most.
"""

from __future__ import annotations

import contextlib
import select
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

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
from hostler_hub.drivers.transports.ssh.channels import OrderedChannel, in_order
from hostler_hub.drivers.transports.ssh.login import Login
from hostler_hub.drivers.transports.ssh.shell import BOOTSTRAP, CommandLine
from hostler_hub.drivers.transports.ssh.translation import translate
from hostler_hub.lifecycle.backoff import Backoff

SESSION_PAUSES_S = Backoff(first_s=0.05, longest_s=0.8).delays_s(5)
NOISE_BYTES = 64 * 1024
"""What start-up files may print beyond a command's own limit."""
_SAID_BYTES = 400
_CHUNK_BYTES = 64 * 1024


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


@dataclass
class Deadline:
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


def run(shared: SharedConnection, deadline: Deadline, *, command: Command) -> CommandResult:
    line, limit = CommandLine(command.argv), command.output_bytes
    try:
        with _session(shared, deadline) as channel:
            if command.sending is not None:
                command.sending()
            deadline.sent = True
            channel.exec_command(BOOTSTRAP)
            _feed(channel, line.input + command.content)
            outcome = _collect(channel, deadline, limit + NOISE_BYTES)
    # paramiko raises in the caller's thread whatever its own thread has met.
    except Exception as error:
        raise _broken(error, deadline) from error
    own = line.output(outcome.stdout)
    if own is None:
        raise _not_started(outcome, deadline)
    _check_size(len(own) + len(outcome.stderr), limit, deadline)
    return CommandResult(outcome.status, own, outcome.stderr)


def _not_started(outcome: CommandResult, deadline: Deadline) -> Refused:
    """The exception for a login shell that did not read the command from its input."""
    deadline.sent = False
    return Refused(
        f"{deadline.address}: the login shell of the account runs no commands, or its start-up "
        f"files end it (exit status {outcome.status}): {last_line(outcome)}"
    )


def last_line(outcome: CommandResult) -> str:
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
def _session(shared: SharedConnection, deadline: Deadline) -> Iterator[paramiko.Channel]:
    channel = _open_session(shared, deadline)
    shared.sessions.add(channel)
    shared.opened += 1
    try:
        channel.settimeout(deadline.left_s())
        yield channel
    finally:
        channel.close()
        shared.sessions.discard(channel)


def _open_session(shared: SharedConnection, deadline: Deadline) -> OrderedChannel:
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


def _collect(channel: paramiko.Channel, deadline: Deadline, limit: int) -> CommandResult:
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


def _check_size(size: int, limit: int, deadline: Deadline) -> None:
    if size > limit:
        raise OutputTooLarge(f"{deadline.address} printed more than {limit} bytes", sent=True)


def _broken(error: Exception, deadline: Deadline) -> TransportError:
    if isinstance(error, TransportError):
        return error
    if isinstance(error, TimeoutError):
        text = f"{deadline.address} did not answer in time"
        return TransportTimeout(text, sent=deadline.sent)
    ours = translate(error, deadline.address)
    ours.sent = deadline.sent
    return ours
