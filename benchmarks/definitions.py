"""A thousand workers, defined and paused by one play each.

Defining is one task of a play; provision.yml, which also looks for the hub and for workers that
were stopped with it, and shows the fleet, is measured beside it. The floor is Ansible itself: a
play over the same inventory that does nothing. What the hub takes of a pause is measured at its
door: the two REST calls that the play makes, order and look.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks import hub
from benchmarks.hub import API, Hub
from benchmarks.processes import BIN, PROJECT, BenchmarkFailed
from benchmarks.rows import Goal, Plan, Reference, Row, Samples

ROUNDS = 3

_INVENTORY = """\
workers:
  hosts:
    bench-[0001:{last:04}]:
  vars:
    hostler_driver: local
    hostler_labels: [bench]
    hostler_properties: {{site: here}}
    ansible_connection: local
    ansible_python_interpreter: "{{{{ ansible_playbook_python }}}}"
"""

_NOTHING = """\
- hosts: workers
  gather_facts: false
  tasks:
    - ansible.builtin.debug:
        msg: "{{ ansible_play_hosts_all | length }}"
      run_once: true
"""

_DEFINE = """\
- hosts: workers
  gather_facts: false
  tasks:
    - hostler.fleet.worker:
        workers: "{{ hostvars | hostler.fleet.definitions(ansible_play_hosts_all) }}"
      run_once: true
      delegate_to: localhost
"""

_GOALS = {
    "define": Goal("value", "at most", 10),
    "define again": Goal("value", "at most", 3),
    "provision.yml again, for": Goal("value", "at most", 10),
    "pause": Goal("value", "at most", 5),
    "pause, the hub's part": Goal("value", "at most", 1),
}


def measure(plan: Plan, directory: Path) -> list[Row]:
    directory.mkdir(parents=True)
    inventory = directory / "hosts.yml"
    inventory.write_text(_INVENTORY.format(last=plan.workers))
    nothing = directory / "nothing.yml"
    nothing.write_text(_NOTHING)
    define = directory / "define.yml"
    define.write_text(_DEFINE)
    names = [f"bench-{number:04}" for number in range(1, plan.workers + 1)]
    samples = Samples()
    with hub.start(directory / "hub") as fleet:
        plays = Plays(inventory, {"HOSTLER_URL": fleet.url, "HOSTLER_TOKEN": fleet.token})
        for _ in plan.each_round(ROUNDS):
            samples.add("nothing", plays.run(nothing, changes=False))
            samples.add("define", plays.run(define, changes=True))
            samples.add("define again", plays.run(define, changes=False))
            provision = [PROJECT / "playbooks/provision.yml", "-e", "smoke=false"]
            samples.add("provision.yml again, for", plays.run(*provision, changes=False))
            pause = [PROJECT / "playbooks/pause.yml", "-e", "reason=benchmark"]
            samples.add("pause", plays.run(*pause, changes=True))
            _mode(fleet, names, "active")
            samples.add("pause, the hub's part", _mode(fleet, names, "paused"))
            fleet.client.post(f"{API}/workers/remove", {"names": names})
    floor = Reference("a play over the same hosts that does nothing", samples["nothing"])
    return [
        Row(f"{name} {plan.workers} workers", "s", samples[name], goal, _floor_of(name, floor))
        for name, goal in _GOALS.items()
    ]


def _floor_of(name: str, floor: Reference) -> Reference | None:
    return None if "hub" in name else floor


def _mode(fleet: Hub, names: list[str], mode: str) -> float:
    """Seconds that the hub takes for what a play asks of it."""
    began_at = time.perf_counter()
    order = {"names": names, "mode": mode, "reason": "benchmark"}
    results = fleet.client.post(f"{API}/workers/mode", order)["results"]
    views = fleet.client.post(f"{API}/workers/query", {"names": names})["items"]
    took_s = time.perf_counter() - began_at
    if len(results) != len(names) or any(view["mode"] != mode for view in views):
        raise BenchmarkFailed(f"not every worker is {mode}")
    return took_s


class Plays:
    """ansible-playbook with an inventory and a hub."""

    def __init__(self, inventory: Path, environment: Mapping[str, str]) -> None:
        self._inventory = inventory
        self._environment = {**os.environ, **environment, "ANSIBLE_NOCOLOR": "1"}

    def run(self, *arguments: str | Path, changes: bool) -> float:
        """Seconds of a play; raises BenchmarkFailed unless it changed something, or nothing."""
        began_at = time.perf_counter()
        done = subprocess.run(
            [BIN / "ansible-playbook", "-i", self._inventory, *arguments],
            cwd=PROJECT,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        took_s = time.perf_counter() - began_at
        if done.returncode != 0:
            raise BenchmarkFailed(f"{arguments[0]}: {done.stdout[-1500:]}{done.stderr[-500:]}")
        recap = done.stdout.partition("PLAY RECAP")[2]
        if ("changed=0" not in recap) is not changes:
            raise BenchmarkFailed(f"{arguments[0]} changed what it should not: {recap[:500]}")
        return took_s
