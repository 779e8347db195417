"""missing_check.yml against a real hub: agents that are killed, stopped, or never there."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import psutil
import pytest
from ansible_collections.hostler.fleet.plugins.module_utils.client import Client
from collection.test_modules import task
from e2e.hub_process import HubProcess
from stopping import stop

pytestmark = pytest.mark.timeout(300)
PASSWORD = "the permanent ones' own"
PATIENCE_S = 60


@pytest.fixture
def site(tmp_path):
    with HubProcess.running(tmp_path / "hub") as hub:
        yield hub


class Machine:
    """An agent as its owner runs it, with a script that restarts it."""

    def __init__(self, hub, home, name):
        self.name = name
        home.mkdir()
        (home / "secret").write_text(PASSWORD)
        (home / "secret").chmod(0o600)
        (home / "agent.json").write_text(
            json.dumps(
                {
                    "hub": hub.agents_url,
                    "name": name,
                    "workdir": str(home / "work"),
                    "token_file": str(home / "secret"),
                }
            )
        )
        (home / "agent.json").chmod(0o600)
        self.pid_file = home / "pid"
        run = f"{sys.executable} -m hostler_agent run --config {home}/agent.json"
        self.script = home / "restart"
        self.script.write_text(
            f"#!/bin/sh\n[ -e {self.pid_file} ] && kill -9 $(cat {self.pid_file}) 2>/dev/null\n"
            f"setsid {run} >{home}/log 2>&1 </dev/null &\necho $! >{self.pid_file}\n"
        )
        self.script.chmod(0o755)

    def start(self):
        subprocess.run([self.script], check=True)

    @property
    def pid(self):
        return int(self.pid_file.read_text())


def wait_until(ask, what):
    """Real processes on the other side: look until the deadline."""
    end = time.monotonic() + PATIENCE_S
    while not ask():
        assert time.monotonic() < end, f"not in time: {what}"
        time.sleep(0.1)


def test_the_ladder_is_climbed_as_far_as_it_takes(site, play, ansible, tmp_path):
    killed, stopped = (Machine(site, tmp_path / name, name) for name in ("killed", "stopped"))
    access = {"hub_state_dir": str(site.state_dir)}
    permanent = {"driver": "permanent", "password": PASSWORD, "missing_timeout": 0.5}
    workers = [
        {"name": "killed", **permanent},
        {"name": "stopped", "keepalive_interval": 3, **permanent},
        {"name": "well", "driver": "local"},
        {"name": "lost", "driver": "local", "check_instance_interval": 1},
    ]
    prestart = task("worker", names=["lost"], state="substantiated")
    code, output = play([task("worker", "defined", workers=workers), prestart], defaults=access)
    assert code == 0, output

    names = ["killed", "stopped"]
    client = Client(site.url, site.token)

    def views(key):
        return [
            bool(view[key]) for view in client.post("/workers/query", {"names": names})["items"]
        ]

    for machine in (killed, stopped):
        machine.start()
    wait_until(lambda: all(views("attached")), "attached")
    os.kill(killed.pid, signal.SIGKILL)
    stop(stopped.pid)
    os.kill(_agent_of(site, "lost"), signal.SIGKILL)
    wait_until(lambda: all(views("missing")), "missing")

    here = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    hosts = {
        machine.name: {"missing_restart_command": [str(machine.script)], **permanent_host()}
        for machine in (killed, stopped)
    }
    hosts |= {"well": {"hostler_driver": "local"}, "lost": {"hostler_driver": "local"}}
    hosts["undefined"] = {"hostler_driver": "local"}
    hosts["hopeless"] = {"hostler_driver": "nothing-of-that-name"}
    inventory = tmp_path / "hosts.json"
    inventory.write_text(json.dumps({"workers": {"hosts": hosts, "vars": here}}))
    where = ["-i", inventory, "-e", f"hub_state_dir={site.state_dir}"]
    stats = {"ANSIBLE_SHOW_CUSTOM_STATS": "1"}
    done = ansible("ansible-playbook", "playbooks/missing_check.yml", *where, env=stats)
    try:
        said = " ".join(done.stdout.split())
        assert done.returncode == 2, done.stdout + done.stderr
        assert "1 of 6 workers are missing: hopeless" in said
        rungs = tried(done.stdout)
        assert rungs["killed"][-1] == ("restart", "found")
        assert rungs["stopped"][-1] == ("restart", "found")
        assert rungs["undefined"][-1] == ("reprovision", "found")
        assert [rung for rung, _ in rungs["hopeless"]][-2:] == ["reprovision", "notify"]
        assert ("reprovision", "failed") in rungs["hopeless"]
        assert not {"well", "lost"} & set(rungs), "where nothing runs nothing is missing"
        assert "there is no driver nothing-of-that-name" in said
        assert "still_missing: - hopeless" in said  # what AWX gets
    finally:
        for machine in (killed, stopped):
            os.kill(machine.pid, signal.SIGKILL)


def test_a_rung_is_replaced_and_its_budget_kept(site, play, ansible, tmp_path):
    """Of a role of one's own, and a rung that never helps: it is tried as often as it may."""
    role = tmp_path / "roles" / "powercycle" / "tasks"
    role.mkdir(parents=True)
    outcome = {"powercycle_outcome": {"result": "tried", "text": "outlet {{ outlet }} off and on"}}
    (role / "main.yml").write_text(json.dumps([{"ansible.builtin.set_fact": outcome}]))
    permanent = {"driver": "permanent", "password": PASSWORD, "missing_timeout": 0.1}
    access = {"hub_state_dir": str(site.state_dir)}
    code, output = play([task("worker", name="far", **permanent)], defaults=access)
    assert code == 0, output
    ladder = [
        {"name": "power", "role": "powercycle", "seconds": 0, "attempts": 2},
        {"name": "notify", "role": "hostler.fleet.missing_notify"},
    ]
    hosts = {"far": {**permanent_host(), "outlet": 7, "hostler_missing_ladder": ladder}}
    inventory = tmp_path / "hosts.json"
    inventory.write_text(json.dumps({"workers": {"hosts": hosts}}))
    done = ansible(
        "ansible-playbook",
        *("playbooks/missing_check.yml", "-i", inventory),
        *("-e", f"hub_state_dir={site.state_dir}"),
        env={"ANSIBLE_ROLES_PATH": str(tmp_path / "roles")},
    )
    assert done.returncode == 2, done.stdout
    rungs = [("power", "tried"), ("power", "tried"), ("notify", "looked")]
    assert tried(done.stdout) == {"far": rungs}
    assert "outlet 7 off and on" in done.stdout
    client = Client(site.url, site.token)
    (incident,) = client.get("/incidents", {"worker": "far"})["items"]
    assert "outlet 7 off and on" in incident["evidence"]["tried"]


def test_a_rung_that_hangs_is_left_and_machines_are_rebooted_only_where_allowed(
    site, play, ansible, tmp_path
):
    permanent = {"driver": "permanent", "password": PASSWORD, "missing_timeout": 0.1}
    access = {"hub_state_dir": str(site.state_dir)}
    workers = [{"name": "may", **permanent}, {"name": "must-not", **permanent}]
    code, output = play([task("worker", workers=workers)], defaults=access)
    assert code == 0, output
    ladder = [
        {"name": "ping", "role": "hostler.fleet.missing_ping", "seconds": 20},
        {"name": "restart", "role": "hostler.fleet.missing_restart", "seconds": 10},
        {"name": "reboot", "role": "hostler.fleet.missing_reboot", "seconds": 10},
    ]
    here = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    common = {**here, **permanent_host(), "hostler_missing_ladder": ladder}
    hosts = {
        "may": {"missing_reboot_allowed": True, "missing_restart_command": ["sleep", "600"]},
        "must-not": {"missing_restart_command": ["true"]},
    }
    inventory = tmp_path / "hosts.json"
    inventory.write_text(json.dumps({"workers": {"hosts": hosts, "vars": common}}))
    where = ["-i", inventory, "-e", f"hub_state_dir={site.state_dir}"]
    done = ansible("ansible-playbook", "playbooks/missing_check.yml", *where)
    assert done.returncode == 2, done.stdout + done.stderr
    assert tried(done.stdout) == {
        "may": [("ping", "looked"), ("restart", "failed"), ("reboot", "failed")],
        "must-not": [("ping", "looked"), ("restart", "tried"), ("reboot", "skipped")],
    }
    said = " ".join(done.stdout.split())
    # Ansible itself refuses to reboot the machine it runs on: so far it has come.
    assert "reboot with local connection would reboot the control node" in said
    assert "not allowed (missing_reboot_allowed)" in said
    assert re.search(r"may .* restart +1 +failed .*[Tt]ime", done.stdout), done.stdout


def permanent_host():
    return {"hostler_driver": "permanent"}


def tried(output):
    """{worker: [(rung, result)]} of the table."""
    rows = re.findall(
        r"^ +([\w-]+)  .*?  (ping|restart|reboot|reprovision|notify|power) +\d+ +(\w+) ",
        output,
        re.MULTILINE,
    )
    found = {}
    for worker, rung, result in rows:
        found.setdefault(worker, []).append((rung, result))
    return found


def _agent_of(hub, worker):
    instance = hub.instance_of(worker).name
    (pid,) = (
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if any(f":{instance}:" in word for word in process.info["cmdline"] or ())
    )
    return pid
