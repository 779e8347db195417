"""The HTTP(S) connections below pywinrm: pinned certificates, limited answers, closable at any
time.

pywinrm would verify certificates by its own rules, and has no way to end a call that hangs. So
requests gets an adapter of ours, whose sockets can be shut down from another thread: a thread that
waits on one of them then fails at once (G3).
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

ANSWER_BYTES = 2 * 1024 * 1024
"""The most bytes of one answer. Windows keeps to the size that we announce, 150 KiB; another
service may not."""

POOL = 1
"""The connections of a session. NTLM authenticates a connection, so each session uses only one."""


class AnswerTooLarge(requests.RequestException):
    """An answer is larger than any of WinRM's: it is another service, or a hostile one."""


@dataclass(frozen=True)
class Trust:
    """The trusted certificates: the one with this SHA-256, those of these authorities (PEM), or
    both.
    """

    fingerprint: str | None = None
    authorities: str | None = None

    @property
    def verifies(self) -> bool:
        """Whether the certificate's issuer and host name are verified."""
        return self.authorities is not None or self.fingerprint is None

    def context(self) -> ssl.SSLContext:
        """The TLS settings for this trust. Raises ValueError if the authorities are not
        certificates.
        """
        try:
            context = ssl.create_default_context(cadata=self.authorities)
        except ssl.SSLError as error:
            raise ValueError(f"these are no certificates: {error}") from error
        if not self.verifies:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


class Connections:
    """The sockets of one session, which can be shut down at any time. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: list[socket.socket] = []
        self._is_cut = False

    def hold(self, made: socket.socket) -> None:
        """Keep a duplicate of a new socket, because TLS takes over the original. Raises
        ConnectionAbortedError after `cut`.
        """
        with self._lock:
            if self._is_cut:
                made.close()
                raise ConnectionAbortedError("the deadline has passed")
            self._held.append(made.dup())

    def cut(self) -> None:
        """Shut all sockets down for good. Calls that wait on one, or open one later, fail."""
        with self._lock:
            self._is_cut = True
            for each in self._held:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
        self.close()

    def close(self) -> None:
        """Close the duplicates."""
        with self._lock:
            held, self._held = self._held, []
            for each in held:
                each.close()


class Adapter(HTTPAdapter):
    """The requests adapter of one session: registers its connections, pins certificates, limits
    answers.
    """

    def __init__(self, trust: Trust, connections: Connections) -> None:
        self._trust = trust
        self._connections = connections
        super().__init__(pool_connections=POOL, pool_maxsize=POOL, max_retries=0)

    def init_poolmanager(self, *arguments: Any, **keywords: Any) -> None:
        """Create the connection pools. Called once by requests."""
        super().init_poolmanager(
            *arguments,
            **keywords,
            ssl_context=self._trust.context(),
            assert_fingerprint=self._trust.fingerprint,
        )
        self.poolmanager.pool_classes_by_scheme = _pools(self._connections)

    def build_connection_pool_key_attributes(
        self, request: requests.PreparedRequest, verify: Any, cert: Any = None
    ) -> Any:
        """Leave the TLS settings to our context; requests would add authorities of its own."""
        host, _ = super().build_connection_pool_key_attributes(request, verify, cert)
        return host, {"cert_reqs": self._requirement}

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """Leave the verification to our context."""
        del url, verify, cert
        conn.cert_reqs = self._requirement

    def build_response(self, req: Any, resp: Any) -> requests.Response:
        """No answer is larger than it may be."""
        response: requests.Response = super().build_response(req, resp)
        response.iter_content = _bounded(response)  # type: ignore[method-assign]
        return response

    @property
    def _requirement(self) -> str:
        return "CERT_REQUIRED" if self._trust.verifies else "CERT_NONE"


def _bounded(response: requests.Response) -> Callable[..., Iterator[bytes]]:
    read = response.iter_content

    def bounded(*arguments: Any, **keywords: Any) -> Iterator[bytes]:
        size = 0
        for chunk in read(*arguments, **keywords):
            size += len(chunk)
            if size > ANSWER_BYTES:
                response.close()  # its connection too: more of it is on its way
                raise AnswerTooLarge(f"an answer of more than {ANSWER_BYTES} bytes")
            yield chunk

    return bounded


def _pools(connections: Connections) -> dict[str, type[HTTPConnectionPool]]:
    """The pool classes, whose connections add their sockets to `connections`."""

    class Plain(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            made = super()._new_conn()
            connections.hold(made)
            return made

    class Secure(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            made = super()._new_conn()
            connections.hold(made)
            return made

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}


def fingerprint_of(host: str, port: int, timeout_s: float) -> str:
    """The SHA-256 fingerprint of the certificate that the server at this address shows; empty if it
    shows none.
    """
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, port), timeout_s) as plain,
            context.wrap_socket(plain, server_hostname=host) as secure,
        ):
            shown = secure.getpeercert(binary_form=True) or b""
    except OSError:
        return ""
    return digest(shown) if shown else ""


def digest(certificate: bytes) -> str:
    """The certificate's SHA-256, in openssl's format: pairs of hex digits joined by colons."""
    return ":".join(f"{byte:02X}" for byte in sha256(certificate).digest())
