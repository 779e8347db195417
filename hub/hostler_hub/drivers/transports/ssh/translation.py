"""Translates exceptions of paramiko and the system into TransportErrors."""

from __future__ import annotations

import socket

from paramiko.ssh_exception import (
    AuthenticationException,
    ChannelException,
    IncompatiblePeer,
    SSHException,
)

from hostler_hub.drivers.transports.errors import (
    AuthenticationFailed,
    Refused,
    TransportError,
    Unreachable,
)

_CONNECT_FAILED = 2  # RFC 4254 section 5.1


def translate(error: Exception, address: str, said: str = "") -> TransportError:
    """Translate an exception. `said` are the last words of a program on the way."""
    if isinstance(error, TransportError):
        return error
    if isinstance(error, AuthenticationException):
        return AuthenticationFailed(
            f"{address} does not let us in: {error}; see the options user, key and password"
        )
    if isinstance(error, ChannelException):
        kind = Unreachable if error.code == _CONNECT_FAILED else Refused
        return kind(f"{address}: the way there was refused: {error.text}")
    if isinstance(error, IncompatiblePeer):
        text = f"{address}: no algorithm in common: {error}"
        return Refused(f"{text}; see its sshd_config, and HostKeyAlgorithms and the like")
    return _unreachable(error, address, said)


def _unreachable(error: Exception, address: str, said: str) -> TransportError:
    if isinstance(error, socket.gaierror):
        return Unreachable(f"{address}: {error.strerror} (is option 'host' right?)")
    if isinstance(error, TimeoutError):
        hint = "is it up, and are the options host, port and connect_timeout_s right?"
        return Unreachable(f"{address} does not answer in time; {hint}")
    broken = isinstance(error, (ConnectionResetError, BrokenPipeError))
    if isinstance(error, OSError) and error.errno is not None and not broken:
        hint = "is its sshd running, and are the options host and port right?"
        return Unreachable(f"{address} cannot be reached: {error.strerror}; {hint}")
    words = str(error) or type(error).__name__
    if said:
        words = f"{words}; ProxyCommand said: {said}"
    if isinstance(error, (SSHException, EOFError, OSError)):
        hint = " (sshd drops logins beyond its MaxStartups)" if "banner" in words else ""
        return Unreachable(f"{address}: the connection broke: {words}{hint}")
    # Whatever else a library raises is about what it was given, or what the server sent.
    kind = type(error).__name__
    return Refused(f"{address}: {kind}: {words}; see the options host, key and ssh_config")
