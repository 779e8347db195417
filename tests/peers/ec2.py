"""EC2 as moto plays it, behind a proxy that does what the real one does now and then.

moto neither throttles nor lags nor knows client tokens, so the proxy does: it answers a repeated
RunInstances of one token with the first answer, and has faults to order, by operation.
"""

from __future__ import annotations

import contextlib
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from moto.server import ThreadedMotoServer

if TYPE_CHECKING:
    from collections.abc import Iterator

_ERROR = (
    '<?xml version="1.0" encoding="UTF-8"?><Response><Errors><Error><Code>{code}</Code>'
    "<Message>{message}</Message></Error></Errors><RequestID>x</RequestID></Response>"
)
_EMPTY = (
    '<?xml version="1.0" encoding="UTF-8"?><DescribeInstancesResponse '
    'xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>x</requestId>'
    "<reservationSet/></DescribeInstancesResponse>"
)


@dataclass
class Fault:
    """What becomes of the next ``times`` calls of ``operation``.

    ``code``: an error of that code, with ``status``; ``done``: after the call was carried out all
    the same (P1); ``hidden``: describing finds nothing (P3).
    """

    operation: str
    code: str = ""
    status: int = 400
    done: bool = False
    hidden: bool = False
    times: int = 1


@dataclass
class Ec2:
    """The proxy's own memory."""

    url: str = ""
    behind: str = ""
    faults: list[Fault] = field(default_factory=list)
    calls: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    answers: dict[str, tuple[int, bytes]] = field(default_factory=dict)  # by client token
    spent: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def operations(self) -> list[str]:
        return [operation for operation, _ in self.calls]

    def fault_of(self, operation: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.operation == operation and fault.times > 0:
                    fault.times -= 1
                    return fault
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_arguments: object) -> None: ...

    def do_POST(self) -> None:
        ec2: Ec2 = self.server.ec2  # type: ignore[attr-defined]
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        query = {key: values[0] for key, values in parse_qs(body.decode()).items()}
        operation = query.get("Action", "")
        ec2.calls.append((operation, query))
        fault = ec2.fault_of(operation)
        if fault is not None and fault.hidden:
            self._answer(200, _EMPTY.encode())
        elif fault is not None and not fault.done:
            self._answer(fault.status, _error(fault.code))
        else:
            answer = self._pass_on(ec2, body, query)
            if fault is not None:
                answer = fault.status, _error(fault.code)
            self._answer(*answer)

    def _pass_on(self, ec2: Ec2, body: bytes, query: dict[str, str]) -> tuple[int, bytes]:
        token = query.get("ClientToken")
        if token in ec2.spent:
            return 400, _error("IdempotentInstanceTerminated")
        if token is not None and token in ec2.answers:
            return ec2.answers[token]
        request = urllib.request.Request(ec2.behind + self.path, data=body, method="POST")
        for name in ("Authorization", "Content-Type", "X-Amz-Date"):
            if self.headers.get(name):
                request.add_header(name, self.headers[name])
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                answer = response.status, response.read()
        except urllib.error.HTTPError as error:
            with error:
                answer = error.code, error.read()
        if token is not None and answer[0] == 200:
            ec2.answers[token] = answer
        return answer

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _error(code: str) -> bytes:
    return _ERROR.format(code=code, message=f"as ordered: {code}").encode()


@contextlib.contextmanager
def running() -> Iterator[Ec2]:
    """The cloud, empty."""
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    proxy.daemon_threads = True
    ec2 = Ec2(url=f"http://127.0.0.1:{proxy.server_port}", behind=f"http://{host}:{port}")
    proxy.ec2 = ec2  # type: ignore[attr-defined]
    thread = threading.Thread(target=proxy.serve_forever, args=[0.01], name="ec2 proxy")
    thread.start()
    try:
        yield ec2
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join()
        moto.stop()
