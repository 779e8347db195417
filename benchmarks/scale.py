"""Ten thousand defined workers and a thousand attached agents on one hub, and how that grows.

The agents live in a process of their own (``swarm``), so that the hub's memory is the hub's. The
same is measured with a hundred workers and a tenth as many agents; what a worker or a connection
costs then is the reference, which should not be exceeded by much.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.client import Client
from benchmarks.hub import API
from benchmarks.processes import PROJECT, BenchmarkFailed, resident_mib, running, wait_for
from benchmarks.rows import Goal, Plan, Reference, Row

_ATTACH_S = 120.0
_FINDS_US = {"PYTHONPATH": str(PROJECT)}


@dataclass(frozen=True)
class Size:
    """How many workers are defined, and how many of them attached."""

    defined: int
    attached: int


@dataclass
class Figures:
    """Of one size."""

    define_ms: float = 0.0  # per worker
    connection_kib: float = 0.0
    lag_ms: float = 0.0
    pause_s: float = 0.0
    back_s: float = 0.0


def measure(plan: Plan, directory: Path) -> list[Row]:
    """The rows of this benchmark; one round, for a fleet this large is made once."""
    large = Size(plan.workers * 10, plan.workers)
    small = Size(max(20, large.defined // 100), max(10, large.attached // 100))
    reference, figures = (
        _measure_one(size, directory / f"{size.defined}") for size in (small, large)
    )
    few, many = f"{small.defined} workers", f"{large.defined} workers, {large.attached} attached"

    def row(name: str, unit: str, value: float, goal: Goal, peer: float | None = None) -> Row:
        beside = None if peer is None else Reference(f"with {few}", [peer])
        return Row(f"{name}, {many}", unit, [value], goal, beside)

    growth = Goal("ratio", "at most", 3)
    return [
        row("define, per worker", "ms", figures.define_ms, growth, reference.define_ms),
        row("memory per connection", "KiB", figures.connection_kib, Goal("value", "at most", 100)),
        row("loop lag when idle, p99", "ms", figures.lag_ms, Goal("value", "at most", 50)),
        row(f"pause of {large.attached}", "s", figures.pause_s, Goal("value", "at most", 1)),
        row("all back after kill -9 of the hub", "s", figures.back_s, Goal("value", "at most", 30)),
    ]


def _measure_one(size: Size, directory: Path) -> Figures:
    directory.mkdir(parents=True)
    figures = Figures()
    path, port = str(directory / "swarm.sock"), _free_port()
    agents = [sys.executable, "-m", "benchmarks.swarm", path]
    with running(agents, directory / "swarm", _FINDS_US):
        wait_for(lambda: Path(path).exists() or None, "the swarm's start")
        names = [f"w-{number:05}" for number in range(size.defined)]
        up = names[: size.attached]
        with _hub(directory / "hub", port) as (pid, client):
            figures.define_ms = _define(client, names, path) / size.defined * 1000
            before = resident_mib(pid)
            client.post(f"{API}/workers/substantiate", {"names": up})
            _await_attached(client, size.attached)
            figures.connection_kib = (resident_mib(pid) - before) / size.attached * 1024
            figures.lag_ms = _idle_lag_ms(directory / "hub" / "lag.json")
            figures.pause_s = _pause(client, up)
            _end_at_once(pid)
        began_at = time.monotonic()
        with _hub(directory / "hub", port) as (_, client):
            _await_attached(client, size.attached)
            figures.back_s = time.monotonic() - began_at
            stop = {"names": up, "mode": "stopped", "reason": "the end"}
            client.post(f"{API}/workers/mode", stop)
    return figures


@contextlib.contextmanager
def _hub(directory: Path, port: int) -> Iterator[tuple[int, Client]]:
    argv = [sys.executable, "-m", "benchmarks.scale_hub", str(directory), str(port)]
    with running(argv, directory, _FINDS_US) as process:
        url = f"http://127.0.0.1:{port}"

        def answers() -> bool | None:
            if process.poll() is not None:
                said = (directory / "output.log").read_text()[-1000:]
                raise BenchmarkFailed(f"the hub did not start: {said}")
            with contextlib.suppress(FileNotFoundError, ValueError):
                run = json.loads((directory / "hub.json").read_text())
                return True if run["pid"] == process.pid else None
            return None

        wait_for(answers, "the hub's start")
        client = Client(url, (directory / "admin.token").read_text().strip())
        try:
            yield process.pid, client
        finally:
            client.close()


def _define(client: Client, names: list[str], path: str) -> float:
    began_at = time.monotonic()
    for start in range(0, len(names), 1000):
        workers = [
            {
                "name": name,
                "driver": "swarm",
                "driver_options": {"socket": path},
                "build_wait_timeout": -1,
            }
            for name in names[start : start + 1000]
        ]
        client.post(f"{API}/workers/define", {"workers": workers})
    return time.monotonic() - began_at


def _await_attached(client: Client, count: int) -> None:
    def look() -> bool | None:
        return True if client.get(f"{API}/status")["workers"]["attached"] >= count else None

    wait_for(look, f"{count} agents attaching", pause_s=0.1, deadline_s=_ATTACH_S)


def _idle_lag_ms(file: Path) -> float:
    """Of ten seconds in which nothing happens."""
    time.sleep(11)
    return float(json.loads(file.read_text()))


def _pause(client: Client, names: list[str]) -> float:
    began_at = time.monotonic()
    client.post(f"{API}/workers/mode", {"names": names, "mode": "paused", "reason": "lunch"})
    took_s = time.monotonic() - began_at
    client.post(f"{API}/workers/mode", {"names": names, "mode": "active"})
    return took_s


def _end_at_once(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])
