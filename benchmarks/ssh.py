"""A worker on a machine reached by SSH, beside OpenSSH's own client that runs Python there.

Warm on both sides: the machine has the agent, the hub its connection; the client has its key in a
file and nothing to ask. The reference starts Python and ends it; ours starts an agent, which
attaches, and runs a command in a job of its own.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import hub
from benchmarks.processes import PROJECT, BenchmarkFailed, wait_for
from benchmarks.rows import Goal, Plan, Reference, Row, Samples
from benchmarks.substantiate import first_byte

if TYPE_CHECKING:
    from peers.sshd import Sshd

    from benchmarks.hub import Hub

WORKER = "latent"
GOAL = Goal("ratio", "at most", 2)
SAME = Goal("ratio", "at most", 1.2)
BROKEN = 8


def measure(plan: Plan, directory: Path) -> list[Row]:
    sys.path.insert(0, str(PROJECT / "tests"))
    from peers import sshd as peer  # noqa: PLC0415

    reason = peer.missing()
    if reason is not None:
        print(f"not measured: {reason}", file=sys.stderr)
        return []
    server = peer.Sshd(directory / "sshd")
    server.start()
    try:
        return _rows(plan, directory, server)
    finally:
        server.stop()


def _rows(plan: Plan, directory: Path, server: Sshd) -> list[Row]:
    secrets = directory / "hub" / "secrets"
    secrets.mkdir(parents=True)
    (secrets / "key").write_text(server.client_key.read_text())
    options = {
        "host": server.address,
        "port": server.port,
        "user": server.user,
        "key": {"file": "key"},
        "host_key": server.public_host_key,
        "python": sys.executable,
        "directory": str(directory / "hostler"),
    }
    samples = Samples()
    with hub.start(directory / "hub") as fleet:
        fleet.define([WORKER], driver="ssh", driver_options=options, build_wait_timeout=0)
        first_byte(fleet, WORKER)  # pushes the agent
        for _ in plan.each_round():
            fleet.await_state(WORKER, "latent")
            samples.add("floor", _bare(server))
            samples.add("ours", first_byte(fleet, WORKER))
        fleet.await_state(WORKER, "latent")
        _break_hosts(fleet, options)
        for _ in plan.each_round():
            samples.add("broken", first_byte(fleet, WORKER))
            fleet.await_state(WORKER, "latent")
    bare = Reference("bare ssh host python3 -c pass", samples["floor"])
    well = Reference("the same while every host works", samples["ours"])
    return [
        Row("ssh, submit to first byte", "s", samples["ours"], GOAL, bare),
        Row(f"ssh, {BROKEN} of {BROKEN + 1} hosts broken", "s", samples["broken"], SAME, well),
    ]


def _break_hosts(fleet: Hub, options: dict[str, Any]) -> None:
    """Let builds wait for workers on machines that refuse, until their starts have failed."""
    names = [f"broken{number}" for number in range(BROKEN)]
    for number, name in enumerate(names):
        fleet.define([name], driver="ssh", driver_options={**options, "port": number + 1})
        fleet.submit(name, "true")

    def look() -> bool | None:
        states = [fleet.worker(name)["quarantine"] for name in names]
        return True if all(states) else None

    wait_for(look, "the failed starts on broken hosts")


def _bare(server: Sshd) -> float:
    options = ["-F", "none", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR"]
    options += ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
    argv = ["ssh", *options, "-i", str(server.client_key), "-p", str(server.port)]
    argv += [f"{server.user}@{server.address}", sys.executable, "-c", "pass"]
    began_at = time.perf_counter()
    done = subprocess.run(argv, capture_output=True, check=False)
    if done.returncode != 0:
        raise BenchmarkFailed(f"ssh failed: {done.stderr.decode()[-300:]}")
    return time.perf_counter() - began_at
