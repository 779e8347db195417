"""How long others wait for the hub while one agent sends as much as it can.

An operator lists the workers, again and again, on one connection; the figure is the 99th percentile
with a flood, the reference the same without one, measured just before.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import hub as hubs
from benchmarks.flooder import FLOODS
from benchmarks.hub import Hub
from benchmarks.processes import BenchmarkFailed
from benchmarks.rows import Goal, Plan, Reference, Row, Samples

_PASSWORD = "correct horse"  # of a worker of this benchmark alone
_REQUESTS = 300
_GOAL_MS = 100.0


def measure(size: Plan, directory: Path) -> list[Row]:
    samples = Samples()
    with hubs.start(directory) as hub:
        names = [f"w{number}" for number in range(len(FLOODS))]
        hub.define(names, driver="permanent", password=_PASSWORD)
        for _ in size.each_round(most=3):
            for name, kind in zip(names, FLOODS, strict=True):
                samples.add(f"{kind}, alone", _p99_ms(hub, size))
                with _flooding(hub, name, kind):
                    samples.add(kind, _p99_ms(hub, size))
    return [
        Row(
            f"p99 of a list of workers while an agent floods: {kind}",
            "ms",
            samples[kind],
            Goal("value", "at most", _GOAL_MS),
            Reference("without a flood", samples[f"{kind}, alone"]),
        )
        for kind in FLOODS
    ]


def _p99_ms(hub: Hub, size: Plan) -> float:
    client = hub.connect()
    took = []
    for _ in range(_REQUESTS if size.rounds > 1 else _REQUESTS // 3):
        began_at = time.perf_counter()
        client.get(f"{hubs.API}/workers")
        took.append(time.perf_counter() - began_at)
        time.sleep(0.01)  # the flood has its turn, and the figure is over some seconds
    client.close()
    return sorted(took)[len(took) * 99 // 100] * 1000


@contextmanager
def _flooding(hub: Hub, worker: str, kind: str) -> Iterator[None]:
    command = [sys.executable, "-m", "benchmarks.flooder", hub.agents_url, worker, _PASSWORD, kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as agent:
        assert agent.stdout is not None
        try:
            _expect(agent.stdout.readline(), "Attached")
            build = hub.submit(worker, "true")
            _expect(agent.stdout.readline(), "Flooding")
            yield
            if agent.poll() is not None:
                raise BenchmarkFailed(f"the hub hung up on the flood of {kind}")
            hub.client.post(f"{hubs.API}/builds/{build}/cancel", {})
        finally:
            agent.kill()


def _expect(line: str, word: str) -> None:
    if line.strip() != word:
        raise BenchmarkFailed(f"the flooding agent said {line.strip()!r}, not {word}")
