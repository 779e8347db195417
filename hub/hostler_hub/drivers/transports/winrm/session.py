"""An authenticated WinRM session: wraps pywinrm and translates its errors.

A shell is opened for every command, and closed with it, so that what a command started does not
outlive it, and no shells are left that count against the machine's limit. A session whose call
failed is not used again: in particular, pywinrm would send the next message unencrypted if it had
not got as far as agreeing on a key.
"""

from __future__ import annotations

import contextlib
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass

import requests
import winrm.transport
from spnego.exceptions import SpnegoError
from winrm.exceptions import (
    InvalidCredentialsError,
    WinRMError,
    WinRMOperationTimeoutError,
    WinRMTransportError,
    WSManFaultError,
)
from winrm.protocol import Protocol

from hostler_hub.drivers.transports.contract import CommandResult
from hostler_hub.drivers.transports.errors import (
    AuthenticationFailed,
    HostKeyChanged,
    HostKeyUnknown,
    OutputTooLarge,
    Refused,
    TransportError,
    TransportTimeout,
    Unreachable,
)
from hostler_hub.drivers.transports.winrm.access import WinrmAccess
from hostler_hub.drivers.transports.winrm.http import (
    Adapter,
    AnswerTooLarge,
    Connections,
    Trust,
    fingerprint_of,
)
from hostler_hub.runtime.errors import SecretRefused
from hostler_hub.runtime.secrets import Secrets

POLL_S = 20
"""How long a Receive may wait for output before WinRM answers that there is none yet, in
seconds."""
CLOSE_S = 5.0
CHUNK_BYTES = 64 * 1024
"""Bytes of standard input per message. In Base64 that stays below the smallest message size that
WinRM accepts, 150 KiB."""
UTF_8 = 65001

Material = tuple[str, str | None]
"""The password, and the authorities (PEM), that a session was opened with."""

_ACCESS_DENIED = 5


@dataclass
class Deadline:
    """The end of a call, for the thread that runs it. `sent` becomes True once the command may have
    reached the machine.
    """

    at: float
    address: str
    sent: bool = False

    def left_s(self) -> float:
        """The seconds left. Raises TransportTimeout if there are none."""
        left = self.at - time.monotonic()
        if left <= 0:
            raise TransportTimeout(f"{self.address} did not answer in time", sent=self.sent)
        return left


class Session:
    """An authenticated session. Used by one thread at a time, except for `cut`. All methods raise
    TransportError.
    """

    def __init__(self, access: WinrmAccess, secrets: Secrets) -> None:
        self.access = access
        self.connections = Connections()
        self.used_at = time.monotonic()
        self.shell_open = ""
        """The id of the open shell; empty if none is open."""
        try:
            self.material = material_of(access, secrets)
            password, authorities = self.material
            trust = _trust(access, authorities)
        except (SecretRefused, ValueError) as error:
            raise AuthenticationFailed(f"{access.address}: {error}") from error
        self._protocol = Protocol(
            access.endpoint,
            transport=access.auth,
            username=access.user,
            password=password,
            proxy=None,
        )
        self._channel = _Channel(access, password, trust, self.connections)
        self._protocol.transport = self._channel

    def cut(self) -> None:
        """Fail every call of this session that waits for the machine. May be called in
        any thread.
        """
        self.connections.cut()

    def close(self) -> None:
        """Close the connection. A shell that is still open ends by its own idle timeout."""
        self._channel.close_session()
        self.connections.close()

    @contextlib.contextmanager
    def shell(self, deadline: Deadline) -> Iterator[str]:
        """Context manager that opens a shell, yields its id, and closes it in any case."""
        with self._translate_errors(deadline):
            self._limit(deadline)
            # The idle timeout ends the shell if the hub dies or the command hangs.
            idle = f"PT{int(deadline.left_s()) + 60}S"
            self.shell_open = self._protocol.open_shell(codepage=UTF_8, idle_timeout=idle)
        try:
            yield self.shell_open
        finally:
            self.end_shell(self.shell_open)

    def start(self, shell: str, line: str, deadline: Deadline) -> str:
        """Start a command line in a shell and return the command's id."""
        with self._translate_errors(deadline):
            self._limit(deadline)
            return self._protocol.run_command(shell, line, console_mode_stdin=False)

    def feed(self, shell: str, command: str, content: bytes, deadline: Deadline) -> None:
        """Write all of `content` to the command's standard input. A command that exits without
        reading it is not an error.
        """
        starts = range(0, max(1, len(content)), CHUNK_BYTES)
        with self._translate_errors(deadline):
            for start in starts:
                self._limit(deadline)
                chunk, end = content[start : start + CHUNK_BYTES], start == starts[-1]
                try:
                    self._protocol.send_command_input(shell, command, chunk, end)
                except WSManFaultError:
                    return

    def collect(self, shell: str, command: str, limit: int, deadline: Deadline) -> CommandResult:
        """Collect the command's output until it ends. Raises OutputTooLarge beyond `limit` bytes,
        and TransportTimeout: pywinrm itself would poll for ever.
        """
        stdout, stderr = bytearray(), bytearray()
        with self._translate_errors(deadline):
            while True:
                self._limit(deadline)
                try:
                    received = self._protocol.get_command_output_raw(shell, command)
                except WinRMOperationTimeoutError:
                    continue
                stdout += received[0]
                stderr += received[1]
                if len(stdout) + len(stderr) > limit:
                    text = f"{self.access.address} printed more than {limit} bytes"
                    raise OutputTooLarge(text, sent=True)
                if received[3]:
                    return CommandResult(received[2], bytes(stdout), bytes(stderr))

    def end_shell(self, shell: str) -> None:
        """Close a shell and end what runs in it. If that fails, the shell ends by its
        idle timeout.
        """
        self._channel.timeouts_s = (CLOSE_S, CLOSE_S)
        with contextlib.suppress(Exception):  # see _translate_errors
            self._protocol.close_shell(shell, close_session=False)
            self.shell_open = ""

    def _limit(self, deadline: Deadline) -> None:
        left_s = deadline.left_s()
        self._protocol.operation_timeout_sec = max(1, min(POLL_S, int(left_s)))
        self._channel.timeouts_s = (min(self.access.connect_timeout_s, left_s), left_s)

    @contextlib.contextmanager
    def _translate_errors(self, deadline: Deadline) -> Iterator[None]:
        """Translate the libraries' exceptions into transport errors that say whether the command
        was sent.
        """
        try:
            yield
        except TransportError as error:
            error.sent = error.sent or deadline.sent
            raise
        except Exception as error:  # whatever pywinrm and its parts let through
            ours = _translate(error, self.access)
            ours.sent = deadline.sent
            raise ours from error


class _Channel(winrm.transport.Transport):
    """pywinrm's HTTP transport, with our own trust and timeouts."""

    def __init__(
        self, access: WinrmAccess, password: str, trust: Trust, connections: Connections
    ) -> None:
        super().__init__(
            access.endpoint,
            username=access.user,
            password=password,
            service="HTTP",
            auth_method=access.auth,
            message_encryption="never" if access.tls else "always",
            ca_trust_path=None,  # type: ignore[arg-type] # nothing of the environment's
            proxy=None,
        )
        self._adapter = Adapter(trust, connections)

    @property
    def timeouts_s(self) -> tuple[float, float]:
        """The timeouts for connecting and for an answer, in seconds."""
        return self._timeouts_s

    @timeouts_s.setter
    def timeouts_s(self, timeouts_s: tuple[float, float]) -> None:
        self._timeouts_s = timeouts_s
        self.read_timeout_sec = timeouts_s  # type: ignore[assignment] # requests takes a pair

    def build_session(self) -> requests.Session:
        """Return the HTTP session, prepared with our adapter. Called by pywinrm before each
        message.
        """
        if self.session is None:
            super().build_session()
        assert self.session is not None
        self._prepare(self.session)
        return self.session

    def setup_encryption(self, session: requests.Session) -> None:
        """Negotiate encryption, which sends the first message. Called by pywinrm from
        `build_session`.
        """
        self._prepare(session)
        super().setup_encryption(session)

    def _prepare(self, session: requests.Session) -> None:
        session.trust_env = False
        session.max_redirects = 0
        for scheme in ("http://", "https://"):
            session.mount(scheme, self._adapter)


# Exceptions that escape from pywinrm's parsing of answers, beside those that it documents.
_GARBLED = (ET.ParseError, StopIteration, KeyError, ValueError, IndexError, AssertionError)
_UNREACHABLE = (requests.RequestException, OSError, WinRMOperationTimeoutError)


def material_of(access: WinrmAccess, secrets: Secrets) -> Material:
    """The secrets of the options as they are now. Raises SecretRefused."""
    password = secrets.of_option("password", access.password) or ""
    return password, secrets.of_option("ca", access.ca)


def _trust(access: WinrmAccess, authorities: str | None) -> Trust:
    """The trusted certificates of the options. Raises ValueError."""
    trust = Trust(access.fingerprint, authorities)
    try:
        trust.context()
    except ValueError as error:
        raise ValueError(f"option 'ca': {error}") from error
    return trust


def _translate(error: BaseException, access: WinrmAccess) -> TransportError:
    """Translate an exception of pywinrm, requests or the system into a TransportError."""
    address = access.address
    if isinstance(error, WSManFaultError):
        return _fault(error, address)
    if isinstance(error, (InvalidCredentialsError, SpnegoError, PermissionError)):
        return AuthenticationFailed(
            f"{address} does not let us in: {error}; see the options user, password and auth"
        )
    if isinstance(error, WinRMTransportError):
        return _status(error, address)
    if isinstance(error, WinRMError):  # pywinrm's own: a mechanism that is not installed
        return AuthenticationFailed(f"{address}: option 'auth': {error}")
    if isinstance(error, (AnswerTooLarge, requests.TooManyRedirects, *_GARBLED)):
        words = f"{type(error).__name__}: {error}"
        return Refused(f"{address} answers, but not as WinRM does: {words}")
    if isinstance(error, requests.exceptions.SSLError):
        return _certificate(error, access)
    if isinstance(error, _UNREACHABLE):
        return _unreachable(error, access)
    # An answer that pywinrm or one of its parts was not written for.
    words = f"{type(error).__name__}: {error}"
    return Refused(
        f"{address} answers, but not as WinRM does: {words} (is it WinRM that listens there? see "
        "the options host, port, tls and auth)"
    )


def _fault(error: WSManFaultError, address: str) -> TransportError:
    reason = " ".join(error.reason.split())
    if error.wsman_fault_code == _ACCESS_DENIED:
        return AuthenticationFailed(
            f"{address}: option 'user' may not run commands there: {reason} (it must be one of the "
            "machine's Administrators, or of its Remote Management Users)"
        )
    code = f" (WSMan fault {error.wsman_fault_code})" if error.wsman_fault_code else ""
    return Refused(f"{address}: WinRM refuses: {reason}{code}")


def _status(error: WinRMTransportError, address: str) -> TransportError:
    hint = ""
    if error.code == requests.codes.not_found:
        hint = " (is it WinRM that listens there? see the options port and tls)"
    return Refused(f"{address}: WinRM answers with HTTP status {error.code}{hint}")


def _certificate(error: Exception, access: WinrmAccess) -> TransportError:
    words = str(error)
    shown = fingerprint_of(access.host, access.listener, access.connect_timeout_s)
    if "ingerprints did not match" in words:
        return HostKeyChanged(
            f"{access.address} shows another certificate than option 'fingerprint' says: SHA-256 "
            f"{shown}; somebody may be in between. If the machine has a new one, correct the option"
        )
    if "CERTIFICATE_VERIFY_FAILED" in words:
        why = words.partition("CERTIFICATE_VERIFY_FAILED] ")[2].partition(" (_ssl")[0]
        return HostKeyUnknown(
            f"{access.address}: its certificate is not believed: {why}; if its fingerprint is "
            f"SHA-256 {shown}, set option 'fingerprint' to it, or give its authority as option 'ca'"
        )
    return Unreachable(f"{access.address}: no TLS: {words} (see the options port and tls)")


def _unreachable(error: BaseException, access: WinrmAccess) -> TransportError:
    address = access.address
    if isinstance(error, requests.ConnectTimeout):
        return Unreachable(f"{address} does not answer in time (see the options host and port)")
    if isinstance(error, (requests.Timeout, WinRMOperationTimeoutError)):
        return TransportTimeout(f"{address} did not answer in time")
    words = _innermost_words(error)
    if "Name or service" in words or "name resolution" in words or "No address" in words:
        return Unreachable(f"{address}: {words} (is option 'host' right?)")
    return Unreachable(
        f"{address} cannot be reached: {words} (does WinRM listen there? see the options host, "
        "port and tls)"
    )


def _innermost_words(error: BaseException) -> str:
    """The system's message in the innermost exception that has one; the outer ones only
    repeat it.
    """
    found = str(error)
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, OSError) and inner.strerror:
            found = inner.strerror
        inner = inner.__cause__ or inner.__context__
    return found
