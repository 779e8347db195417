"""A WinRM service: real HTTP(S), enough of WS-Management for shells, and commands run by Windows.

It knows NTLM (with sealed messages, by pyspnego) and basic authentication, and can be made to fail
in all the ways the real one does. What it executes is executed by Wine's cmd.exe (`winrs`).
"""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import os
import socket
import ssl
import struct
import sys
import threading
import time
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import spnego
from peers import wine

missing = wine.missing

SHELL = "http://schemas.microsoft.com/wbem/wsman/1/windows/shell"
TIMEOUT_CODE, SHELL_GONE_CODE = 2150858793, 2150858843
ENCRYPTED = "application/HTTP-SPNEGO-session-encrypted"
START_S = 60.0


class Windows:
    """Where commands run: one process in Wine for all services of a test run, and ends with it."""

    def __init__(self) -> None:
        self._commands: dict[str, Running] = {}
        self._lock = threading.Lock()
        self._output = wine.Output()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.settimeout(START_S)
            port = str(listener.getsockname()[1])
            self._process = wine.windows().start(
                "-X", "utf8", "-m", "winrs", port,
                stdout=self._output.target, stderr=self._output.target,
            )  # fmt: skip
            self._socket, _ = listener.accept()
        threading.Thread(target=self._listen, name="winrs", daemon=True).start()

    @property
    def lives(self) -> bool:
        return self._process.poll() is None

    def last_words(self) -> str:
        self._socket.close()
        return self._output.close()

    def tell(self, **message: Any) -> None:
        with self._lock:
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    def run(self, shell: str, line: str) -> Running:
        command = Running(str(uuid.uuid4()).upper())
        self._commands[command.name] = command
        self.tell(op="command", shell=shell, command=command.name, line=line)
        return command

    def _listen(self) -> None:
        with contextlib.suppress(OSError), self._socket.makefile("rb") as lines:
            for line in lines:
                message = json.loads(line)
                self._commands[message.pop("command")].heard(**message)


class Running:
    """One command, as far as anybody has asked for its output."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._news = threading.Condition()
        self._output: list[tuple[str, str]] = []
        self._code: int | None = None

    def heard(self, stream: str = "", data: str = "", code: int | None = None) -> None:
        with self._news:
            if stream:
                self._output.append((stream, data))
            self._code = code if code is not None else self._code
            self._news.notify_all()

    def receive(self, within_s: float) -> tuple[list[tuple[str, str]], int | None]:
        """What is new: some of its output, and its code when that was all."""
        with self._news:
            self._news.wait_for(lambda: self._output or self._code is not None, within_s)
            output, self._output = self._output[:2], self._output[2:]
            return output, None if self._output else self._code


_windows: list[Windows] = []


def windows() -> Windows:
    """That of this test run. One that has died fails the test it died in, and not all that follow:
    another takes its place."""
    if _windows and not _windows[-1].lives:
        print("Windows has died:", _windows.pop().last_words(), file=sys.stderr)
    if not _windows:
        _windows.append(Windows())
    return _windows[-1]


class WsMan:
    """A service at `port`. `faults` says for an action ("Receive") what becomes of it: `hang`,
    `drop`, `flood`, `garbage`, `fault N`, or an HTTP status; `drop once` of the next one only.
    """

    def __init__(
        self,
        directory: Path,
        *,
        tls: ssl.SSLContext | None = None,
        mechanisms: tuple[str, ...] = ("Negotiate", "Basic"),
        breakaway: bool = True,
    ) -> None:
        self.user, self.password = "builder", "open sesame"
        self.mechanisms = mechanisms
        self.breakaway = breakaway
        self.faults: dict[str, str] = {}
        self.actions: list[str] = []
        self.lines: list[str] = []
        self.bodies: list[bytes] = []
        self.shells: set[str] = set()
        self.commands: dict[str, Running] = {}
        self.stopped = threading.Event()
        self._connections: set[socket.socket] = set()
        directory.mkdir(parents=True, exist_ok=True)
        self._users = directory / "users"
        self._users.write_text(f":{self.user}:{self.password}\n")
        self.port = 0
        self._tls = tls
        self._server: http.server.ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """At the same port again, after a stop."""
        windows()
        self.stopped.clear()
        # pyspnego has no other way to be told; all services here know the same user.
        os.environ["NTLM_USER_FILE"] = str(self._users)
        service = self

        class Handler(_Handler):
            peer = service

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        if self._tls is not None:
            self._server.socket = self._tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="wsman", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Every connection breaks, every shell ends."""
        if self._server is None or self._thread is None:
            return
        self.stopped.set()
        self._server.shutdown()
        self._thread.join()
        self.drop()
        self._server.server_close()
        self._server = None
        for shell in list(self.shells):
            self.end(shell)

    def drop(self) -> None:
        """Break every connection; the service goes on."""
        for each in list(self._connections):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def use(self, tls: ssl.SSLContext) -> None:
        """Another certificate, from the next start on."""
        self._tls = tls

    def opened(self, connection: socket.socket) -> None:
        self._connections.add(connection)

    def closed(self, connection: socket.socket) -> None:
        self._connections.discard(connection)

    def end(self, shell: str) -> None:
        self.shells.discard(shell)
        windows().tell(op="delete", shell=shell)


class Fault(Exception):
    """A SOAP fault with Windows' number."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class _Handler(http.server.BaseHTTPRequestHandler):
    peer: WsMan
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    context: Any = None
    let_in = False

    def setup(self) -> None:
        super().setup()
        self.peer.opened(self.connection)

    def finish(self) -> None:
        self.peer.closed(self.connection)
        with contextlib.suppress(OSError):
            super().finish()
        with contextlib.suppress(OSError):
            self.connection.close()

    def handle(self) -> None:
        # A client that goes without a word, or does not believe us, is the client's affair.
        with contextlib.suppress(OSError, ssl.SSLError):
            super().handle()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if not self._admit():
            return
        if not body:
            self._reply(200, b"")
            return
        self.peer.bodies.append(body)
        message = self._unseal(body)
        action = _action(message)
        self.peer.actions.append(action)
        if self._fail(action):
            return
        try:
            self._reply(200, _envelope(message, self._act(action, message)))
        except Fault as fault:
            self._reply(500, _fault(fault))

    def _admit(self) -> bool:
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        if scheme in ("Negotiate", "NTLM") and "Negotiate" in self.peer.mechanisms:
            return self._negotiate(scheme, token)
        if scheme == "Basic" and "Basic" in self.peer.mechanisms:
            given = base64.b64decode(token).decode()
            if given == f"{self.peer.user}:{self.peer.password}":
                return True
        elif self.let_in:
            return True
        self._refuse()
        return False

    def _negotiate(self, scheme: str, token: str) -> bool:
        if self.context is None or self.let_in:
            self.context, self.let_in = spnego.server(protocol="ntlm"), False
        try:
            answer = self.context.step(base64.b64decode(token))
        except spnego.exceptions.SpnegoError:
            self.context = None
            self._refuse()
            return False
        if not self.context.complete:
            self._refuse(f"{scheme} {base64.b64encode(answer).decode()}")
            return False
        self.let_in = True
        return True

    def _refuse(self, *challenges: str) -> None:
        self.send_response(401)
        for each in challenges or self.peer.mechanisms:
            realm = ' realm="WSMAN"' if each == "Basic" else ""
            self.send_header("WWW-Authenticate", each + realm)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _unseal(self, body: bytes) -> ET.Element:
        if "multipart/encrypted" in self.headers.get("Content-Type", ""):
            sealed = body.split(b"application/octet-stream\r\n", 1)[1]
            sealed = sealed[: sealed.rindex(b"--Encrypted Boundary--")]
            body = self.context.unwrap(sealed[4:]).data
        return ET.fromstring(body)

    def _reply(self, status: int, content: bytes) -> None:
        kind = "application/soap+xml;charset=UTF-8"
        if content and "multipart/encrypted" in self.headers.get("Content-Type", ""):
            kind = f'multipart/encrypted;protocol="{ENCRYPTED}";boundary="Encrypted Boundary"'
            content = self._seal(content)
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _seal(self, content: bytes) -> bytes:
        sealed = self.context.wrap(content, encrypt=True).data
        original = f"type=application/soap+xml;charset=UTF-8;Length={len(content)}"
        return (
            (
                f"--Encrypted Boundary\r\n\tContent-Type: {ENCRYPTED}\r\n"
                f"\tOriginalContent: {original}\r\n--Encrypted Boundary\r\n"
                "\tContent-Type: application/octet-stream\r\n"
            ).encode()
            + struct.pack("<i", 16)
            + sealed
            + b"--Encrypted Boundary--\r\n"
        )

    def _fail(self, action: str) -> bool:
        fault = self.peer.faults.get(action, "")
        if fault.endswith(" once"):
            fault = self.peer.faults.pop(action).removesuffix(" once")
        if fault == "hang":
            self.peer.stopped.wait(60)
        if fault in ("hang", "drop"):
            self.close_connection = True
        elif fault == "flood":
            self._flood()
        elif fault == "garbage":
            self._reply(200, b"<html>It works!</html>")
        elif fault.startswith("fault"):
            self._reply(500, _fault(Fault(int(fault.split()[1]), "Access is denied.")))
        elif fault:
            self._reply(int(fault), b"")
        return bool(fault)

    def _flood(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(1 << 40))
        self.end_headers()
        self.close_connection = True
        with contextlib.suppress(OSError):
            while not self.peer.stopped.is_set():
                self.wfile.write(b"x" * 65536)

    def _act(self, action: str, message: ET.Element) -> str:
        shell = _text(message, "Selector")
        if action != "Create" and shell not in self.peer.shells:
            raise Fault(SHELL_GONE_CODE, "The shell was not found on the server.")
        acts: dict[str, Callable[[str, ET.Element], str]] = {
            "Create": self._create,
            "Command": self._command,
            "Send": self._send,
            "Receive": self._receive,
            "Signal": lambda *_: "<rsp:SignalResponse/>",
            "Delete": self._delete,
        }
        return acts[action](shell, message)

    def _create(self, _shell: str, _message: ET.Element) -> str:
        shell = str(uuid.uuid4()).upper()
        self.peer.shells.add(shell)
        windows().tell(op="create", shell=shell, breakaway=self.peer.breakaway)
        return f'<w:SelectorSet><w:Selector Name="ShellId">{shell}</w:Selector></w:SelectorSet>'

    def _command(self, shell: str, message: ET.Element) -> str:
        line = " ".join(filter(None, (_text(message, "Command"), _text(message, "Arguments"))))
        self.peer.lines.append(line)
        running = windows().run(shell, f"cmd.exe /C {line}")
        self.peer.commands[running.name] = running
        return (
            f"<rsp:CommandResponse><rsp:CommandId>{running.name}</rsp:CommandId>"
            "</rsp:CommandResponse>"
        )

    def _send(self, _shell: str, message: ET.Element) -> str:
        stream = _find(message, "Stream")
        windows().tell(
            op="send",
            command=stream.get("CommandId"),
            data=stream.text or "",
            end=stream.get("End") == "true",
        )
        return "<rsp:SendResponse/>"

    def _receive(self, _shell: str, message: ET.Element) -> str:
        name = _find(message, "DesiredStream").get("CommandId") or ""
        within_s = float(_text(message, "OperationTimeout")[2:-1])
        output, code = self.peer.commands[name].receive(within_s)
        if not output and code is None:
            raise Fault(TIMEOUT_CODE, "The operation has timed out.")
        streams = "".join(
            f'<rsp:Stream Name="{stream}" CommandId="{name}">{data}</rsp:Stream>'
            for stream, data in output
        )
        state = "Running" if code is None else "Done"
        exit_code = "" if code is None else f"<rsp:ExitCode>{code}</rsp:ExitCode>"
        return (
            f'<rsp:ReceiveResponse>{streams}<rsp:CommandState CommandId="{name}" '
            f'State="{SHELL}/CommandState/{state}">{exit_code}</rsp:CommandState>'
            "</rsp:ReceiveResponse>"
        )

    def _delete(self, shell: str, _message: ET.Element) -> str:
        self.peer.end(shell)
        return ""


def _find(message: ET.Element, tag: str) -> ET.Element:
    return next(each for each in message.iter() if each.tag.endswith("}" + tag))


def _text(message: ET.Element, tag: str) -> str:
    found = (each.text for each in message.iter() if each.tag.endswith("}" + tag))
    return next(found, None) or ""


def _action(message: ET.Element) -> str:
    return _text(message, "Action").rpartition("/")[2]


def _envelope(message: ET.Element, body: str) -> bytes:
    return (
        '<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope" '
        'xmlns:a="http://schemas.xmlsoap.org/ws/2004/08/addressing" '
        'xmlns:w="http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd" '
        f'xmlns:rsp="{SHELL}"><s:Header>'
        f"<a:RelatesTo>{_text(message, 'MessageID')}</a:RelatesTo></s:Header>"
        f"<s:Body>{body}</s:Body></s:Envelope>"
    ).encode()


def _fault(fault: Fault) -> bytes:
    return (
        '<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"><s:Body><s:Fault>'
        "<s:Code><s:Value>s:Receiver</s:Value></s:Code>"
        f'<s:Reason><s:Text xml:lang="en-US">{escape(str(fault))}</s:Text></s:Reason>'
        '<s:Detail><f:WSManFault xmlns:f="http://schemas.microsoft.com/wbem/wsman/1/wsmanfault" '
        f'Code="{fault.code}"/></s:Detail></s:Fault></s:Body></s:Envelope>'
    ).encode()


def wait_until(condition: Callable[[], bool], within_s: float = 60.0) -> None:
    """For what Windows does on its own."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
