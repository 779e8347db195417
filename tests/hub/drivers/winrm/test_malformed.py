"""Malformed configurations of WinRM workers, at a service whose answers are none."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle
from pathlib import Path
from typing import Any, ClassVar

import pytest
from conformance.malformed import MalformedConfigurations

from hostler_hub.drivers.contract import Environment
from hostler_hub.drivers.winrm import WinrmDriver
from hostler_hub.runtime.secrets import Secrets

_ANSWERS = cycle(
    [
        (200, b""),
        (200, b"<html>nothing of the kind"),
        (200, b"<a/>"),
        (401, b""),
        (500, b"<s:Envelope xmlns:s='x'><s:Body/></s:Envelope>"),
        (200, b"\xff\xfe"),
        (503, b"busy"),
    ]
)


class _Nonsense(BaseHTTPRequestHandler):
    """Answers each request with the next of these."""

    def log_message(self, *_arguments: object) -> None: ...

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, body = next(_ANSWERS)
        self.send_response(status)
        if status == 401:
            self.send_header("WWW-Authenticate", "Negotiate oRswGaADCgEBo nonsense")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def port() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Nonsense)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=[0.01])
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
async def driver(
    environment: Environment, equip: Callable[[Environment], Environment], tmp_path: Path
) -> AsyncIterator[WinrmDriver]:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "password").write_text("open sesame")
    (tmp_path / "secrets" / "binary").write_bytes(b"\xff\x00")
    public = replace(equip(environment), connect_url="wss://hub.invalid/api/v1/agents/connect")
    made = WinrmDriver(replace(public, secrets=Secrets(tmp_path / "secrets")))
    yield made
    await made.aclose()


@pytest.fixture
def options(port: int) -> dict[str, Any]:
    return {
        "host": "127.0.0.1",
        "port": port,
        "user": "builder",
        "password": {"file": "password"},
        "tls": False,
        "connect_timeout_s": 5.0,
    }


class TestMalformed(MalformedConfigurations):
    """Nothing but the driver's own errors."""

    most_carried_out = 40
    more: ClassVar[dict[str, Sequence[Any]]] = {
        "host": ["::1", "fe80::1%nowhere", "256.256.256.256", "a..b", "xn--", "-", "a" * 64],
        "user": ["\\", "LAB\\", "@", "a@", "CON"],
        "password": [{"file": "binary"}],
        "ca": [{"file": "password"}, {"file": "binary"}],
        "auth": ["kerberos", "basic"],
        "tls": [True],
        "directory": ["C:\\", "C:/CON", "~\\..", "Z:\\nul"],
        "python": ["nul", "con.exe", "a b c"],
    }
