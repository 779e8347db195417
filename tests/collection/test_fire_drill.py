"""fire_drill.yml: a throw-away fleet through every drill, a fleet that is refused, plays that are
killed while an agent is frozen; and that the witness sees what must not happen.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from ansible_collections.hostler.fleet.plugins.module_utils import dead_mans_switch, processes
from ansible_collections.hostler.fleet.plugins.module_utils.client import Client
from ansible_collections.hostler.fleet.plugins.module_utils.probe import TERMINAL, Probe, Witness
from collection.test_modules import task
from e2e.hub_process import HubProcess

pytestmark = pytest.mark.timeout(600)
DRILLS = ["freeze", "cut", "disk", "memory", "hub", "spot", "clock"]
PATIENCE_S = 120
FOR_EVER = ["-e", "duration=600"]


@pytest.fixture
def drill(ansible):
    """Runs the playbook: drill("-e", ...) -> (rc, output). Throw-away fleets are below
    drill.places, whose name is short enough for a Unix socket in it.
    """
    places = Path(tempfile.mkdtemp(prefix="fd-"))
    env = {"TMPDIR": str(places), "ANSIBLE_SHOW_CUSTOM_STATS": "1"}

    def run(*arguments):
        done = ansible("ansible-playbook", "playbooks/fire_drill.yml", *arguments, env=env)
        return done.returncode, done.stdout + done.stderr

    run.places = places
    yield run
    assert processes.kill_all(str(places)) == []
    places.rmdir()


def rows(output):
    """{drill: (result, what)} of the table."""
    drills = "|".join(DRILLS)
    line = rf"^ +({drills}) +\S+ +(passed|failed|skipped) +(?:\S+ +){{4}}(.+)$"
    return {name: (result, what) for name, result, what in re.findall(line, output, re.MULTILINE)}


def wait_until(ask, what):
    """Real processes on the other side: look until the deadline."""
    end = time.monotonic() + PATIENCE_S
    while not (found := ask()):
        assert time.monotonic() < end, f"not in time: {what}"
        time.sleep(0.1)
    return found


def test_a_throw_away_fleet_goes_through_every_drill_and_leaves_nothing(drill):
    code, output = drill("-e", "throw_away=true", "-e", "duration=2")
    assert code == 0, output
    shown = rows(output)
    assert list(shown) == DRILLS
    assert shown["freeze"] == shown["hub"] == ("passed", "-"), output
    for name, (result, what) in shown.items():
        assert (result, what) == ("passed", "-") or (result == "skipped" and what != "-"), name
    if os.geteuid() == 0 and shutil.which("unshare"):
        assert shown["disk"] == shown["spot"] == ("passed", "-"), output
    assert "hostler_fire_drill:" in output  # what AWX gets
    assert list(drill.places.iterdir()) == []


def test_a_fleet_that_is_not_marked_is_refused(drill, tmp_path):
    hosts = {"tame": {"fire_drill": True}, "shy": {"fire_drill": "no"}, "new": {}}
    inventory = tmp_path / "hosts.json"
    inventory.write_text(json.dumps({"workers": {"hosts": hosts}}))
    # Nobody listens there: the refusal comes before the hub is asked anything.
    code, output = drill("-i", inventory, "-e", f"hub_state_dir={tmp_path}/none")
    assert code == 2
    assert "not marked for it: new, shy." in " ".join(output.split())
    assert rows(output) == {}


@contextmanager
def broken_off(drill, *arguments):
    """A play that is killed, with all its workers, as soon as the caller has got out of `with`."""
    said = []
    running = threading.Thread(target=lambda: said.append(drill(*arguments)))
    running.start()
    try:
        yield
    finally:
        for process in psutil.Process().children(recursive=True):
            if "playbooks/fire_drill.yml" in process.cmdline():
                process.kill()
        running.join()


def frozen_agent(state_dir):
    """The stopped agent of a hub that is somewhere below the directory, or None."""
    for process in psutil.process_iter(["cmdline", "status"]):
        words = process.info["cmdline"] or []
        is_agent = "--mark" in words and any(word.startswith(str(state_dir)) for word in words)
        if is_agent and process.info["status"] == psutil.STATUS_STOPPED:
            return process
    return None


def test_a_play_that_is_killed_leaves_an_agent_that_runs(drill, play, tmp_path):
    inventory = tmp_path / "hosts.json"
    inventory.write_text(json.dumps({"workers": {"hosts": {"w1": {"fire_drill": True}}}}))
    with HubProcess.running(tmp_path / "hub") as hub:
        definition = task("worker", name="w1", driver="local", keepalive_interval=600)
        code, output = play([definition], defaults={"hub_state_dir": str(hub.state_dir)})
        assert code == 0, output
        where = ["-i", inventory, "-e", f"hub_state_dir={hub.state_dir}"]
        with broken_off(drill, *where, *FOR_EVER, "--tags", "freeze"):
            agent = wait_until(lambda: frozen_agent(hub.state_dir), "an agent is frozen")
        wait_until(lambda: agent.status() != psutil.STATUS_STOPPED, "the agent runs")
        client = Client(hub.url, hub.token)

        def probes_that_wait():
            return [b for b in client.get("/builds")["items"] if b["state"] not in TERMINAL]

        wait_until(lambda: not probes_that_wait(), "no build of the drill is left")
        client.post(
            "/workers/mode",
            {"names": ["w1"], "mode": "stopped", "reason": "over", "dry_run": False},
        )


def killed_hub(places):
    """The run file of a hub below the directory whose process has ended, or None."""
    for path in places.glob("*/hub/hub.json"):
        if processes.start_time(json.loads(path.read_text())["pid"]) is None:
            return path
    return None


@pytest.mark.parametrize(("tag", "harmed"), [("freeze", frozen_agent), ("hub", killed_hub)])
def test_a_play_that_is_killed_takes_its_throw_away_fleet_down(drill, tag, harmed):
    with broken_off(drill, "-e", "throw_away=true", *FOR_EVER, "--tags", tag):
        wait_until(lambda: harmed(drill.places), f"{tag} is under way")
    wait_until(lambda: not list(drill.places.iterdir()), "nothing of the fleet is left")
    assert processes.find(str(drill.places), None, []) == []


def test_harm_is_undone_when_its_time_is_over(tmp_path):
    undone = tmp_path / "undone"
    with dead_mans_switch.DeadMansSwitch(undone.touch, 0.1):
        wait_until(undone.exists, "undone by itself")


def test_harm_that_cannot_be_undone_is_told():
    with (
        pytest.raises(dead_mans_switch.NotUndone),
        dead_mans_switch.DeadMansSwitch(lambda: 1 / 0, PATIENCE_S),
    ):
        pass


def test_harm_is_undone_when_who_did_it_is_killed(tmp_path):
    undone, harmed = tmp_path / "undone", tmp_path / "harmed"
    script = (
        "import pathlib, time\n"
        "from ansible_collections.hostler.fleet.plugins.module_utils import dead_mans_switch\n"
        f"with dead_mans_switch.DeadMansSwitch(pathlib.Path({str(undone)!r}).touch, 600):\n"
        f"    pathlib.Path({str(harmed)!r}).touch()\n"
        "    time.sleep(600)\n"
    )
    path = str(Path(__file__).parents[2] / "collections")
    process = subprocess.Popen(
        [sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": path}
    )
    wait_until(harmed.exists, "harmed")
    assert not undone.exists()
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_until(undone.exists, "undone")


class Run:
    """A process of a probe build, as the witness sees it."""

    def __init__(self, witness, probe):
        self._connection = socket.create_connection(("127.0.0.1", witness.port))
        self._connection.sendall(f"{probe.word}\n".encode())

    def end(self):
        self._connection.close()


@pytest.mark.parametrize(
    ("at_a_time", "ended", "words"),
    [
        (1, 1, []),
        (1, 0, ["leak"]),
        (2, 2, ["double run", "double run"]),
        (0, 0, []),
    ],
)
def test_the_witness_sees_double_runs_and_leaks(at_a_time, ended, words):
    with Witness() as witness:
        probe = Probe(None, witness, 0)
        probe.id, probe.view = "1", {"state": "success", "attempts": 1, "result_text": None}
        runs = [Run(witness, probe) for _ in range(at_a_time)]
        assert witness.wait(lambda one: one.runs.get(probe.word, 0) == at_a_time, PATIENCE_S)
        for run in runs[:ended]:
            run.end()
        assert [said.partition(":")[0] for said in probe.faults(5 if ended else 0.05)] == words
        for run in runs[ended:]:
            run.end()


@pytest.mark.parametrize(
    "view", [None, {"state": "exception", "attempts": 1, "result_text": "lost"}]
)
def test_a_build_without_success_is_a_lost_one(view):
    probe = Probe(None, None, 0)
    probe.id, probe.view = "1", view
    assert [said.partition(":")[0] for said in probe.faults(0)] == ["lost build"]
