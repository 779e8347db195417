"""What an agent costs: its start, and its rest; beside a stock buildbot-worker.

Ours is started by the hub, from the moment it knows that it wants the worker; the peer's from the
spawn of its process, since a stock worker is started by hand. Both starts end when the other side
knows it attached. Both rest side by side, so that the same noise is over both.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import psutil

from benchmarks import buildbot, hub
from benchmarks.buildbot import Master
from benchmarks.hub import API, Hub
from benchmarks.processes import BenchmarkFailed, cpu_s, resident_mib, tree_share_mib
from benchmarks.rows import Goal, Plan, Reference, Row, Samples

NAME = "idle"


def measure(plan: Plan, directory: Path) -> list[Row]:
    ours, theirs = Samples(), Samples()
    with (
        hub.start(directory / "hub") as fleet,
        buildbot.start(directory / "buildbot", {"builder": [NAME]}) as master,
    ):
        fleet.define([NAME])
        for _ in plan.each_round():
            with _agent(fleet) as (_, took_s):
                ours.add("start", took_s)
            with _worker(master) as (_, took_s):
                theirs.add("start", took_s)
        with _agent(fleet) as (agent, _), _worker(master) as (worker, _):
            _rest(plan, {agent: "agent", fleet.pid: "hub"}, ours)
            _rest_of_peers(worker.pid, master.pid, theirs)
            fleet.await_success(fleet.submit(NAME, "true"))
            fleet.await_idle(NAME)
            ours.add("agent after a build", tree_share_mib(agent))
            master.build("builder", 1)
            theirs.add("worker after a build", tree_share_mib(worker.pid))
    return _rows(ours, theirs)


def _rows(ours: Samples, theirs: Samples) -> list[Row]:
    def peer(name: str, key: str) -> Reference:
        return Reference(name, theirs[key])

    worker, master = buildbot.WORKER, buildbot.MASTER
    small = Goal("value", "at most", 30)
    return [
        Row(
            "agent, start to attached",
            "s",
            ours["start"],
            Goal("value", "at most", 0.28),
            peer(worker, "start"),
        ),
        Row("agent, resident", "MiB", ours["agent"], small, peer(worker, "worker")),
        Row(
            "agent after a build, its share",
            "MiB",
            ours["agent after a build"],
            small,
            peer(worker, "worker after a build"),
        ),
        # A thousandth of a core cannot be told from none on a machine that does anything else.
        Row("agent, idle CPU", "%", ours["agent CPU"], Goal("value", "at most", 0.1)),
        Row(
            "hub, resident",
            "MiB",
            ours["hub"],
            Goal("value", "at most", 90),
            peer(master, "master"),
        ),
        Row("hub, idle CPU", "%", ours["hub CPU"], Goal("value", "at most", 0.5)),
    ]


def _rest(plan: Plan, processes: dict[int, str], samples: Samples) -> None:
    """Let them rest; memory in MiB, CPU in percent of one core."""
    time.sleep(1)  # what the start left to do
    before = {pid: cpu_s(pid) for pid in processes}
    began_at = time.monotonic()
    time.sleep(plan.idle_s)
    took_s = time.monotonic() - began_at
    for pid, name in processes.items():
        samples.add(f"{name} CPU", (cpu_s(pid) - before[pid]) / took_s * 100)
        samples.add(name, resident_mib(pid))


def _rest_of_peers(worker: int, master: int, samples: Samples) -> None:
    samples.add("worker", resident_mib(worker))
    samples.add("master", resident_mib(master))


@contextlib.contextmanager
def _agent(fleet: Hub) -> Iterator[tuple[int, float]]:
    """An agent of ours: its pid, and the seconds from the wish until the hub called it attached."""
    fleet.substantiate([NAME])
    events = fleet.client.get(f"{API}/workers/{NAME}/events?limit=20")["items"]
    # The newest come first, and an earlier start's lie behind them.
    at = {each["event"]: _epoch_s(each["at"]) for each in reversed(events)}
    agents = [
        child.pid
        for child in psutil.Process(fleet.pid).children()
        if "hostler_agent" in child.cmdline()
    ]
    if len(agents) != 1:
        raise BenchmarkFailed(f"there should be one agent; there are {len(agents)}")
    yield agents[0], at["Attached"] - at["Wanted"]
    fleet.client.post(f"{API}/workers/insubstantiate", {"names": [NAME]})
    fleet.await_state(NAME, "latent")


@contextlib.contextmanager
def _worker(master: Master) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    """The same of the peer's."""
    master.create_worker(NAME)
    began_at = time.time()
    with master.worker(NAME) as process:
        yield process, master.await_attached([NAME])[NAME] - began_at


def _epoch_s(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
