"""Workers in containers, beside `docker run` of the same image with the same start of Python.

The floor imports, from the same archive, what an agent in a container has imported when it has run
a build, and its time ends with a byte on standard output. It is Docker's own client that runs it,
so it does nothing of what a fleet wants: no mark, no files put in, no hub that commits.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks import hub
from benchmarks.definitions import Plays
from benchmarks.hub import Hub
from benchmarks.processes import PROJECT, BenchmarkFailed, wait_for
from benchmarks.rows import Goal, Plan, Reference, Row, Samples
from benchmarks.substantiate import COMMAND, first_byte

WORKER = "latent"
LISTED = "listed"
MANY = 20
ROUNDS = 2
FIRST_GOAL = Goal("ratio", "at most", 1.5)
MANY_GOAL = Goal("ratio", "at most", 2)

# Runs the agent whose command line follows, and writes at its end what it had imported.
_LISTING = """\
import atexit, json, runpy, sys
known = set(sys.modules)
atexit.register(lambda: open({modules!r}, "w").write(json.dumps(
    [name for name in list(sys.modules) if name not in known and name != "__main__"])))
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""

_FLOOR = """\
import importlib, os, sys
sys.path.insert(0, "/agent.pyz")
for name in {modules!r}:
    importlib.import_module(name)
os.write(1, b".")
"""

_INVENTORY = """\
workers:
  hosts:
    many-[01:{last:02}]:
  vars:
    hostler_driver: docker
    hostler_driver_options: {options}
    ansible_connection: local
    ansible_python_interpreter: "{{{{ ansible_playbook_python }}}}"
"""

_START = """\
- hosts: workers
  gather_facts: false
  tasks:
    - hostler.fleet.worker:
        workers: "{{ hostvars | hostler.fleet.definitions(ansible_play_hosts_all) }}"
      run_once: true
      delegate_to: localhost
    - hostler.fleet.worker:
        names: "{{ ansible_play_hosts_all }}"
        state: substantiated
      run_once: true
      delegate_to: localhost
"""


def measure(plan: Plan, directory: Path) -> list[Row]:
    sys.path.insert(0, str(PROJECT / "tests"))
    from peers import docker as peer  # noqa: PLC0415

    reason = peer.missing()
    if reason is not None:
        print(f"not measured: {reason}", file=sys.stderr)
        return []
    directory.mkdir(parents=True)
    settings = {"HOSTLER_DOCKER_ALLOW": f"bind={directory}"}
    with peer.shared() as url, hub.start(directory / "hub", settings) as fleet:
        options = {"image": peer.IMAGE, "docker_host": url, "network_mode": "none"}
        floor = _Floor(url, peer.IMAGE, _archive(directory), _imports(fleet, directory, options))
        return [
            _first_row(plan, fleet, options, floor),
            _many_row(plan, fleet, directory, options, floor),
        ]


def _first_row(plan: Plan, fleet: Hub, options: dict[str, Any], floor: _Floor) -> Row:
    samples = Samples()
    fleet.define([WORKER], driver="docker", driver_options=options, build_wait_timeout=0)
    for _ in plan.each_round():
        samples.add("floor", floor.measure())
        samples.add("ours", first_byte(fleet, WORKER))
        fleet.await_state(WORKER, "latent")
    reference = Reference(floor.name, samples["floor"])
    return Row("docker, submit to first byte", "s", samples["ours"], FIRST_GOAL, reference)


def _many_row(
    plan: Plan, fleet: Hub, directory: Path, options: dict[str, Any], floor: _Floor
) -> Row:
    """From the play's start to its end, when every worker can take builds."""
    inventory = directory / "hosts.yml"
    inventory.write_text(_INVENTORY.format(last=MANY, options=json.dumps(options)))
    play = directory / "start.yml"
    play.write_text(_START)
    names = [f"many-{number:02}" for number in range(1, MANY + 1)]
    plays = Plays(inventory, {"HOSTLER_URL": fleet.url, "HOSTLER_TOKEN": fleet.token})
    samples = Samples()
    for _ in plan.each_round(ROUNDS):
        samples.add("floor", floor.measure_many(MANY))
        samples.add("ours", plays.run(play, changes=True))
        fleet.client.post(f"{hub.API}/workers/remove", {"names": names})
        wait_for(lambda: True if fleet.gone(names) else None, "the containers' end")
    reference = Reference(f"{MANY} at once: {floor.name}", samples["floor"])
    return Row(f"docker, {MANY} by one play", "s", samples["ours"], MANY_GOAL, reference)


def _archive(directory: Path) -> Path:
    (archive,) = (directory / "hub").rglob("*.pyz")
    return archive


def _imports(fleet: Hub, directory: Path, options: dict[str, Any]) -> list[str]:
    """What an agent in a container has imported when it has run a build."""
    modules = directory / "modules.json"
    listing = ["python3", "-c", _LISTING.format(modules=str(modules))]
    mounted = {"entrypoint": listing, "volumes": [f"{directory}:{directory}"]}
    given = {**options, **mounted}
    fleet.define([LISTED], driver="docker", driver_options=given, build_wait_timeout=0)
    fleet.await_success(fleet.submit(LISTED, *COMMAND))
    fleet.await_state(LISTED, "latent")
    names: list[str] = json.loads(modules.read_text())
    if "hostler_agent.daemon" not in names:
        raise BenchmarkFailed(f"these cannot be an agent's imports: {names}")
    return names


class _Floor:
    """The bare `docker run`, to be measured again and again."""

    def __init__(self, url: str, image: str, archive: Path, modules: Sequence[str]) -> None:
        self.name = f"bare docker run of Python with the agent's {len(modules)} imports"
        self._argv = ["docker", "--host", url, "run", "--rm", "--init", "--network", "none"]
        self._argv += ["--volume", f"{archive}:/agent.pyz:ro", image]
        self._argv += ["python3", "-c", _FLOOR.format(modules=list(modules))]
        self.measure()  # the first one reads from the disk what the others find in memory

    def measure(self) -> float:
        began_at = time.perf_counter()
        with subprocess.Popen(self._argv, stdout=subprocess.PIPE, env=os.environ) as process:
            assert process.stdout is not None
            if process.stdout.read(1) != b".":
                raise BenchmarkFailed("the agent's imports cannot be imported in the container")
            return time.perf_counter() - began_at

    def measure_many(self, count: int) -> float:
        """Until the last of them has its byte."""
        with ThreadPoolExecutor(count) as threads:
            return max(threads.map(lambda _: self.measure(), range(count)))
