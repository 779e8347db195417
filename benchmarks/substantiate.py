"""From submit to the first byte of output, when the worker does not even exist yet.

The floor is what any agent in Python must pay: the bare start of the same interpreter with the same
imports. Which modules those are is not written down here but asked of an agent that has just run a
build. Its time, too, ends with a byte in a pipe, so that neither side pays for its own end.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import hub
from benchmarks.hub import API, Hub
from benchmarks.processes import BenchmarkFailed, wait_for
from benchmarks.rows import Goal, Plan, Reference, Row, Samples

WORKER = "latent"
LISTED = "listed"
# printf's format is in the log's header, its result is not.
MARK = b"first-byte"
COMMAND = ["printf", "%s-%s", "first", "byte"]
GOAL = Goal("ratio", "at most", 2)

# In place of the interpreter: runs the agent as usual, and writes at its end what it had imported.
_LISTING = """\
#!{python}
import atexit, json, runpy, sys
assert sys.argv[1:4] == ["-I", "-m", "hostler_agent"]
modules = {modules!r}
known = set(sys.modules)
atexit.register(lambda: open(modules, "w").write(json.dumps(
    [name for name in list(sys.modules) if name not in known and name != "__main__"])))
del sys.argv[1:4]
sys.path[0] = ""
runpy.run_module("hostler_agent", run_name="__main__", alter_sys=True)
"""

_FLOOR = """\
import importlib, os, sys
for name in {modules!r}:
    importlib.import_module(name)
os.write(1, b".")
"""


def measure(plan: Plan, directory: Path) -> list[Row]:
    samples = Samples()
    with hub.start(directory / "hub") as fleet:
        floor = _floor(_imports(fleet, directory))
        fleet.define([WORKER], build_wait_timeout=0)
        for _ in plan.each_round():
            samples.add("floor", floor.measure())
            samples.add("ours", first_byte(fleet, WORKER))
            fleet.await_state(WORKER, "latent")
    name = f"bare start of Python with the agent's {floor.count} imports"
    reference = Reference(name, samples["floor"])
    return [Row("substantiate to first byte", "s", samples["ours"], GOAL, reference)]


def first_byte(fleet: Hub, worker: str) -> float:
    """Seconds from the submission of a build to the first byte of its command's output."""
    began_at = time.perf_counter()
    build = fleet.submit(worker, *COMMAND)
    seen, took_s = b"", 0.0
    for piece in fleet.client.follow(f"{API}/builds/{build}/steps/0/log?follow=true"):
        seen += piece
        if MARK in seen and not took_s:
            took_s = time.perf_counter() - began_at
    if not took_s:
        raise BenchmarkFailed(f"the output never came; the log is {seen!r}")
    fleet.await_success(build)
    return took_s


def _imports(fleet: Hub, directory: Path) -> list[str]:
    """What an agent has imported when it has run a build."""
    modules = directory / "modules.json"
    python = directory / "python"
    python.write_text(_LISTING.format(python=sys.executable, modules=str(modules)))
    python.chmod(0o700)
    fleet.define([LISTED], build_wait_timeout=0, driver_options={"python": str(python)})
    fleet.await_success(fleet.submit(LISTED, *COMMAND))
    fleet.await_state(LISTED, "latent")
    wait_for(lambda: True if modules.exists() else None, "the list of the agent's imports")
    names: list[str] = json.loads(modules.read_text())
    if "hostler_agent.daemon" not in names:
        raise BenchmarkFailed(f"these cannot be an agent's imports: {names}")
    return names


class _Floor:
    """The bare start, to be measured again and again."""

    def __init__(self, modules: Sequence[str]) -> None:
        self.count = len(modules)
        # The hub gives an agent next to nothing of its own environment.
        self._environment = {
            name: value for name, value in os.environ.items() if not name.startswith("PYTHON")
        }
        self._argv = [sys.executable, "-c", _FLOOR.format(modules=list(modules))]

    def measure(self) -> float:
        began_at = time.perf_counter()
        with subprocess.Popen(self._argv, stdout=subprocess.PIPE, env=self._environment) as process:
            assert process.stdout is not None
            if process.stdout.read(1) != b".":
                raise BenchmarkFailed("the agent's imports cannot be imported")
            return time.perf_counter() - began_at


def _floor(modules: Sequence[str]) -> _Floor:
    floor = _Floor(modules)
    floor.measure()  # the first start reads from the disk what the others find in memory
    return floor
