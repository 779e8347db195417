"""The peer: a stock Buildbot master and stock workers, as processes of their own."""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

from benchmarks.processes import BIN, PROJECT, BenchmarkFailed, running, wait_for

MASTER = f"Buildbot {version('buildbot')} master"
WORKER = f"buildbot-worker {version('buildbot-worker')}"

DATABASE = "sqlite:///state.sqlite"

_MASTER_CFG = """\
import json, sys
sys.path.insert(0, {project!r})
from benchmarks.buildbot_config import make
BuildmasterConfig = make(**json.loads({arguments!r}))
"""

# Appended to a worker's buildbot.tac: what a patient user would find out and change.
_WITHOUT_NAGLE = """
from buildbot_worker.msgpack import BuildbotWebSocketClientProtocol as _Protocol
_on_connect = _Protocol.onConnect
def _connected(self, response):
    self.transport.setTcpNoDelay(True)
    return _on_connect(self, response)
_Protocol.onConnect = _connected
"""


@dataclass(frozen=True)
class Master:
    """A master that takes orders."""

    pid: int
    port: int
    password: str
    directory: Path
    orders: IO[str]
    news: IO[str]

    def build(self, builder: str, count: int) -> float:
        """Have ``true`` built so often; seconds from the order to the last build's end."""
        began_at = time.time()
        self.orders.write(json.dumps({"builder": builder, "count": count}) + "\n")
        self.orders.flush()
        ended_at = began_at
        for _ in range(count):
            told = self._next("finished")
            if told["results"] != 0:
                raise BenchmarkFailed(f"a build of Buildbot's ended with {told['results']}")
            ended_at = told["at"]
        return ended_at - began_at

    def await_attached(self, names: Sequence[str]) -> dict[str, float]:
        """When (epoch seconds) the master knew each of these workers attached."""
        attached: dict[str, float] = {}
        while set(names) - set(attached):
            told = self._next("attached")
            attached[told["worker"]] = told["at"]
        return attached

    def _next(self, event: str) -> Mapping[str, Any]:
        for line in self.news:
            told: Mapping[str, Any] = json.loads(line)
            if told["event"] == event:
                return told
        raise BenchmarkFailed(f"Buildbot's master is gone: {_last_words(self.directory)}")

    def create_worker(self, name: str, *, nagle: bool = True) -> Path:
        """A worker's directory, made unless it is there; without ``nagle`` not as shipped."""
        directory = self.directory.parent / name
        make_worker(directory, self.port, name, self.password, nagle=nagle)
        return directory

    @contextlib.contextmanager
    def worker(self, name: str, *, nagle: bool = True) -> Iterator[subprocess.Popen[bytes]]:
        """A worker's process, started."""
        with running(twistd(), self.create_worker(name, nagle=nagle)) as process:
            yield process


@contextlib.contextmanager
def start(directory: Path, builders: Mapping[str, Sequence[str]]) -> Iterator[Master]:
    """Serve a master with these builders, each on the workers of the names it is given."""
    basedir = directory / "master"
    directory.mkdir(parents=True)
    # It listens on every address there is, so nobody shall guess what it is told to trust.
    port, password = _free_port(), secrets.token_hex(16)
    _run(
        [str(BIN / "buildbot"), "create-master", "--quiet", "--db=sqlite:///state.sqlite", basedir]
    )
    desk = basedir / "orders"
    arguments = json.dumps(
        {"port": port, "password": password, "builders": builders, "socket": str(desk)}
    )
    text = _MASTER_CFG.format(project=str(PROJECT), arguments=arguments)
    (basedir / "master.cfg").write_text(text)
    with running(twistd(), basedir) as process, socket.socket(socket.AF_UNIX) as connection:

        def connect() -> bool | None:
            if process.poll() is not None:
                raise BenchmarkFailed(f"Buildbot did not start: {_last_words(basedir)}")
            with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port)).close()  # the last thing it opens
                connection.connect(str(desk))
                return True
            return None

        wait_for(connect, "the Buildbot master's start", pause_s=0.05)
        connection.settimeout(120)
        with connection.makefile("w") as orders, connection.makefile("r") as news:
            yield Master(process.pid, port, password, basedir, orders, news)


def make_worker(directory: Path, port: int, name: str, password: str, *, nagle: bool) -> None:
    """Unless it is there already."""
    if directory.exists():
        return
    command = [BIN / "buildbot-worker", "create-worker", "--quiet"]
    command += ["--protocol=msgpack_experimental_v7", directory]
    command += [f"127.0.0.1:{port}", name, password]
    _run(command)
    if not nagle:
        with open(directory / "buildbot.tac", "a") as tac:
            tac.write(_WITHOUT_NAGLE)


def twistd() -> list[str]:
    """What serves a master's or a worker's directory in the foreground."""
    return [str(BIN / "twistd"), "--nodaemon", "--no_save", "-y", "buildbot.tac"]


def _run(command: Sequence[str | Path]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode != 0:
        raise BenchmarkFailed(f"{command[0]} failed: {done.stdout}{done.stderr}")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def _last_words(directory: Path) -> str:
    log = directory / "twistd.log"
    return log.read_text()[-2000:] if log.exists() else (directory / "output.log").read_text()
