"""EC2 as moto plays it, behind a proxy that does what the real one does now and then.

moto neither throttles nor lags nor knows client tokens, has other user-data for an instance that
runs, and its instances run nothing. So the proxy answers a repeated RunInstances of one token with
the first answer, refuses what an instance's state forbids, has faults to order and a weather that
lasts, and tells a hypervisor (`ec2_machines`) what begins and ends.
"""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import sys
import threading
import time
import urllib.error
import urllib.request
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import parse_qs, urlencode

import boto3

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

AMI = "ami-12c6146b"
"""One that moto has."""
REGION = "eu-west-1"

_NAMESPACE = "http://ec2.amazonaws.com/doc/2016-11-15"
_ERROR = (
    '<?xml version="1.0" encoding="UTF-8"?><Response><Errors><Error><Code>{code}</Code>'
    "<Message>{message}</Message></Error></Errors><RequestID>x</RequestID></Response>"
)
_EMPTY = (
    f'<?xml version="1.0" encoding="UTF-8"?><DescribeInstancesResponse xmlns="{_NAMESPACE}">'
    "<requestId>x</requestId><reservationSet/></DescribeInstancesResponse>"
)
_CONSOLE = (
    f'<?xml version="1.0" encoding="UTF-8"?><GetConsoleOutputResponse xmlns="{_NAMESPACE}">'
    "<requestId>x</requestId><instanceId>{id}</instanceId>"
    "<timestamp>2026-01-01T00:00:00.000Z</timestamp><output>{output}</output>"
    "</GetConsoleOutputResponse>"
)
_CHANGING = {
    "RunInstances",
    "TerminateInstances",
    "StopInstances",
    "StartInstances",
    "CreateTags",
    "ModifyInstanceAttribute",
}
LIVING = ("pending", "running", "stopping", "stopped", "shutting-down")

ET.register_namespace("", _NAMESPACE)

Answer = tuple[int, bytes]


@dataclass
class Fault:
    """What becomes of the next ``times`` calls of ``operation``.

    ``code``: an error of that code, with ``status``; ``done``: after the call was carried out all
    the same (P1); ``hidden``: describing finds nothing (P3). ``then`` is called before the answer
    leaves, and may see to it that nobody hears it.
    """

    operation: str
    code: str = ""
    status: int = 400
    done: bool = False
    hidden: bool = False
    times: int = 1
    then: Callable[[], None] | None = None


@dataclass
class Weather:
    """What goes on for as long as it is set: a day on which EC2 is slow to tell and quick to err.

    ``hidden_s``: a new instance is not shown for so long; ``stale_s``: one that has ended is shown
    running; ``throttled_every``: each so-manieth call is refused; ``lying_every``: each so-manieth
    call that changes something is carried out and answered with an error.
    """

    hidden_s: float = 0.0
    stale_s: float = 0.0
    throttled_every: int = 0
    lying_every: int = 0


class Hypervisor(Protocol):
    """Who runs what the instances are told to run."""

    def start(self, instance_id: str, user_data: bytes) -> None: ...
    def tell(self, instance_id: str, user_data: bytes) -> None: ...
    def resume(self, instance_id: str) -> None: ...
    def halt(self, instance_id: str) -> None: ...
    def console(self, instance_id: str) -> bytes | None: ...


class _Nobody:
    """Instances are entries of a table only."""

    def start(self, instance_id: str, user_data: bytes) -> None: ...
    def tell(self, instance_id: str, user_data: bytes) -> None: ...
    def resume(self, instance_id: str) -> None: ...
    def halt(self, instance_id: str) -> None: ...
    def console(self, instance_id: str) -> bytes | None:
        return None


NOBODY: Hypervisor = _Nobody()


@dataclass
class Ec2:
    """The proxy's own memory."""

    url: str = ""
    behind: str = ""
    faults: list[Fault] = field(default_factory=list)
    weather: Weather = field(default_factory=Weather)
    hypervisor: Hypervisor = field(default_factory=lambda: NOBODY)
    calls: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    answers: dict[str, Answer] = field(default_factory=dict)  # by client token
    spent: set[str] = field(default_factory=set)
    started_at: dict[str, float] = field(default_factory=dict)
    ended_at: dict[str, float] = field(default_factory=dict)
    changes: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def operations(self) -> list[str]:
        return [operation for operation, _ in self.calls]

    def fault_of(self, operation: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.operation == operation and fault.times > 0:
                    fault.times -= 1
                    return fault
        return self._bad_weather(operation)

    def client(self) -> Any:
        """Past the proxy: the provider itself, or somebody at its console."""
        keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
        return boto3.client("ec2", region_name=REGION, endpoint_url=self.behind, **keys)

    def living(self, hub: str) -> dict[str, str]:
        """What really is there of a hub: instance ULID by EC2's own id, stopped ones too."""
        filters = [
            {"Name": "tag:hostler:hub", "Values": [hub]},
            {"Name": "instance-state-name", "Values": list(LIVING)},
        ]
        found = self.client().describe_instances(Filters=filters)
        instances = [each for made in found["Reservations"] for each in made["Instances"]]
        return {each["InstanceId"]: _tag(each, "hostler:instance") for each in instances}

    def state(self, instance_id: str) -> str:
        (found,) = self.client().describe_instances(InstanceIds=[instance_id])["Reservations"]
        return str(found["Instances"][0]["State"]["Name"])

    def _bad_weather(self, operation: str) -> Fault | None:
        with self.lock:
            weather, count = self.weather, len(self.calls)
            if weather.throttled_every and count % weather.throttled_every == 0:
                return Fault(operation, "RequestLimitExceeded", 503)
            if operation in _CHANGING:
                self.changes += 1
                if weather.lying_every and self.changes % weather.lying_every == 0:
                    return Fault(operation, "InternalError", 500, done=True)
        return None


def missing() -> str | None:
    """What of moto is not installed and how to get it, or None."""
    if importlib.util.find_spec("moto") and importlib.util.find_spec("flask"):
        return None
    return "moto's server is missing: pip install 'moto[server]'"


def _tag(instance: dict[str, Any], name: str) -> str:
    return next((str(each["Value"]) for each in instance["Tags"] if each["Key"] == name), "")


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
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it has been killed
            self._answer(*self._outcome(ec2, fault, body, query))

    def _outcome(self, ec2: Ec2, fault: Fault | None, body: bytes, query: dict[str, str]) -> Answer:
        if fault is not None and fault.hidden:
            answer = 200, _EMPTY.encode()
        elif fault is not None and fault.code and not fault.done:
            answer = fault.status, _error(fault.code)
        else:
            # An order that its sender's death took with it was never carried out.
            lost = fault is not None and fault.then is not None and not fault.done
            answer = (500, b"") if lost else self._carry_out(ec2, body, query)
            if fault is not None and fault.code:
                answer = fault.status, _error(fault.code)
        if fault is not None and fault.then is not None:
            fault.then()
        return answer

    def _carry_out(self, ec2: Ec2, body: bytes, query: dict[str, str]) -> Answer:
        token = query.get("ClientToken")
        if token in ec2.spent:
            return 400, _error("IdempotentInstanceTerminated")
        if token is not None and token in ec2.answers:
            return ec2.answers[token]
        if "UserData.Value" in query:
            if ec2.state(query["InstanceId"]) != "stopped":
                return 400, _error("IncorrectInstanceState")
            # moto decodes it, and then takes only what is encoded still.
            twice = base64.b64encode(query["UserData.Value"].encode()).decode()
            body = urlencode({**query, "UserData.Value": twice}).encode()
        answer = self._pass_on(ec2, body)
        if answer[0] == 200:
            if token is not None:
                ec2.answers[token] = answer
            answer = _seen_through(ec2, query, answer)
        return answer

    def _pass_on(self, ec2: Ec2, body: bytes) -> Answer:
        request = urllib.request.Request(ec2.behind + self.path, data=body, method="POST")
        for name in ("Authorization", "Content-Type", "X-Amz-Date"):
            if self.headers.get(name):
                request.add_header(name, self.headers[name])
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class _Proxy(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # hubs are killed here
            super().handle_error(request, client_address)


def _error(code: str) -> bytes:
    return _ERROR.format(code=code, message=f"as ordered: {code}").encode()


# --- what was carried out, and how much of it is shown ------------------------------------------


def _seen_through(ec2: Ec2, query: dict[str, str], answer: Answer) -> Answer:
    operation = query["Action"]
    named = [value for key, value in query.items() if key.startswith("InstanceId")]
    if operation == "DescribeInstances":
        return _shown(ec2, named, answer)
    if operation == "GetConsoleOutput":
        return _console(ec2.hypervisor, named[0]) or answer
    if operation == "RunInstances":
        for made in _ids(ET.fromstring(answer[1])):
            ec2.started_at[made] = time.monotonic()
            ec2.hypervisor.start(made, base64.b64decode(query.get("UserData", "")))
    if "UserData.Value" in query:
        ec2.hypervisor.tell(named[0], base64.b64decode(query["UserData.Value"]))
    for each in named:
        if operation in {"TerminateInstances", "StopInstances"}:
            ec2.ended_at.setdefault(each, time.monotonic())
            ec2.hypervisor.halt(each)
        elif operation == "StartInstances":
            ec2.ended_at.pop(each, None)
            ec2.hypervisor.resume(each)
    return answer


def _console(hypervisor: Hypervisor, instance_id: str) -> Answer | None:
    text = hypervisor.console(instance_id)
    if text is None:
        return None
    output = base64.b64encode(text).decode()
    return 200, _CONSOLE.format(id=instance_id, output=output).encode()


def _shown(ec2: Ec2, named: Sequence[str], answer: Answer) -> Answer:
    """What a describing call would see in this weather."""
    weather, now = ec2.weather, time.monotonic()
    hidden = {each for each, at in ec2.started_at.items() if now < at + weather.hidden_s}
    stale = {each for each, at in ec2.ended_at.items() if now < at + weather.stale_s}
    if hidden & set(named):
        return 400, _error("InvalidInstanceID.NotFound")
    if not hidden and not stale:
        return answer
    tree = ET.fromstring(answer[1])
    (reservations,) = tree.findall("{*}reservationSet")
    for reservation in list(reservations):
        ids = set(_ids(reservation))
        if ids & hidden:
            reservations.remove(reservation)
        if ids & stale:
            for state in reservation.findall(".//{*}instanceState"):
                state[0].text, state[1].text = "16", "running"
    return 200, ET.tostring(tree)


def _ids(tree: ET.Element) -> list[str]:
    return [str(each.text) for each in tree.findall(".//{*}instanceId")]


# --- running ------------------------------------------------------------------------------------


@contextlib.contextmanager
def region() -> Iterator[str]:
    """A cloud without a proxy, empty; its URL."""
    from moto.server import ThreadedMotoServer  # takes its time to load

    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    try:
        host, port = moto.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        moto.stop()


@contextlib.contextmanager
def proxied(behind: str) -> Iterator[Ec2]:
    """A way into a cloud, with faults of its own."""
    proxy = _Proxy(("127.0.0.1", 0), _Handler)
    ec2 = Ec2(url=f"http://127.0.0.1:{proxy.server_port}", behind=behind)
    proxy.ec2 = ec2  # type: ignore[attr-defined]
    thread = threading.Thread(target=proxy.serve_forever, args=[0.01], name="ec2 proxy")
    thread.start()
    try:
        yield ec2
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join()


@contextlib.contextmanager
def running() -> Iterator[Ec2]:
    """The cloud, empty, and the way into it."""
    with region() as behind, proxied(behind) as ec2:
        yield ec2
