"""The module reconcile, against a stand-in for the hub, and its playbook against a real one."""

import json
import os
import subprocess
import sys
from urllib.request import Request, urlopen

import pytest

FINDING = {
    "driver": "ec2",
    "kind": "orphan",
    "action": "destroy",
    "instance": "01K8Z9Q8Y3N6V4T2R0P9M7K5J3",
    "epoch": 4,
    "worker": "build-7",
    "name": "i-0abc",
    "created_at": "2026-01-02T03:04:05.678Z",
    "age_s": 691200.0,
    "reason": "the ledger says that it ended",
    "done": True,
    "error": None,
}
HELD = {**FINDING, "kind": "unknown", "action": "hold", "worker": None, "done": False}
CHECKED = [{"driver": "ec2", "listed": 2, "expected": 1, "spares": 0}]


def told(*findings, unanswered=(), hold=None):
    return {
        "at": FINDING["created_at"],
        "hold": hold,
        "checked": CHECKED,
        "unanswered": list(unanswered),
        "findings": list(findings),
    }


def run(**options):
    return {"hostler.fleet.reconcile": options, "register": "result", "name": "reconcile"}


SHOW = {"ansible.builtin.debug": {"msg": "{{ result | to_json }}"}}


def test_it_tells_what_an_orphan_has_cost(hub, play):
    hub.replies["/reconcile"] = told(FINDING, HELD)
    code, output = play([run(prices={"ec2": 0.2136})], "--check", "--diff", "-v")
    assert code == 0, output
    assert "+destroy orphan: i-0abc of build-7, 8 d, $41" in output
    assert "hold unknown: i-0abc, 8 d, $41 (the ledger says" in output
    assert "+hold" not in output
    assert hub.requests[-1][2] == {"drivers": None, "dry_run": True, "confirmed": False}
    assert "changed=1" in output


def test_P18_a_restored_hub_s_hold_is_told(hub, play):
    hub.replies["/reconcile"] = told(HELD, hold="the hub was restored")
    code, output = play([run(), SHOW])
    assert code == 0, output
    assert '"hold": "the hub was restored"' in output.replace("\\", "")


def test_how_the_hub_is_is_told(hub, play):
    hub.replies["/status"] = {"hub": "H", "hold": None, "not_ready": "the disk is full"}
    code, output = play([{"hostler.fleet.hub_info": {}, "register": "result", "name": "ask"}, SHOW])
    assert code == 0, output
    assert "the disk is full" in output


def test_a_stopped_machine_has_not_cost_what_a_running_one_does(hub, play):
    hub.replies["/reconcile"] = told({**FINDING, "kind": "spare"})
    code, output = play([run(prices={"ec2": 0.2136})], "--check", "--diff")
    assert code == 0, output
    assert "+destroy spare: i-0abc of build-7, 8 d\n" in output


def test_nothing_to_do_is_no_change(hub, play):
    hub.replies["/reconcile"] = told(HELD)
    code, output = play([run()])
    assert code == 0, output
    assert "changed=0" in output


def test_a_silent_provider_fails_it_after_all_else_is_done(hub, play):
    silent = {"driver": "docker", "place": "tcp://d:1", "reason": "docker: connection refused"}
    hub.replies["/reconcile"] = told(FINDING, unanswered=[silent])
    code, output = play([run()])
    assert code == 2
    assert "not all is settled: no answer from docker, tcp://d:1: docker: connection" in output
    code, output = play([run(fail_on_unanswered=False)])
    assert code == 0, output


def test_what_could_not_be_destroyed_fails_it(hub, play):
    hub.replies["/reconcile"] = told({**FINDING, "done": False, "error": "ec2: throttled"})
    code, output = play([run()])
    assert code == 2
    assert "not all is settled: ec2: throttled" in output
    assert "(failed: ec2: throttled)" in output


def test_forgetting_needs_somebodys_word(hub, play):
    hub.replies["/reconcile"] = told()
    hub.replies["/workers/forget"] = {"results": [{"name": "w", "changed": True}]}
    for options in ({"forget": ["w"]}, {"forget": ["w"], "confirmed": True}):
        code, output = play([run(**options)])
        assert code == 2
        assert "and a reason" in output
    assert hub.requests == []
    code, output = play([run(forget=["w"], confirmed=True, reason="sold")], "--diff")
    assert code == 0, output
    assert "forget the instance of w" in output
    assert hub.requests[0][2] == {
        "names": ["w"],
        "reason": "sold",
        "confirmed": True,
        "dry_run": False,
    }


def test_a_price_is_a_number(hub, play):
    code, output = play([run(prices={"ec2": "cheap"})])
    assert code == 2
    assert "no price per hour" in output
    assert hub.requests == []


@pytest.fixture
def site(ansible, tmp_path):
    """Runs a playbook with a real hub of its own, which is taken down at the end."""

    def run(playbook, *arguments):
        access = ["-e", f"hub_state_dir={tmp_path / 'hub'}", "-e", "hub_port=0"]
        done = ansible("ansible-playbook", f"playbooks/{playbook}", *access, *arguments)
        return done.returncode, done.stdout + done.stderr

    yield run
    code, output = run("down.yml")
    assert code == 0, output


@pytest.mark.timeout(300)
def test_the_playbook_finds_and_destroys_a_real_stray(site, ansible, tmp_path):
    code, output = site("provision.yml", "-e", "smoke=false")
    assert code == 0, output
    token = (tmp_path / "hub" / "admin.token").read_text().strip()
    url = json.loads((tmp_path / "hub" / "hub.json").read_text())["url"]
    ask = Request(f"{url}/api/v1/status", headers={"Authorization": f"Bearer {token}"})
    with urlopen(ask) as answer:
        hub_id = json.load(answer)["hub"]
    mark = f"{hub_id}:{FINDING['instance']}:1"
    idle = "import time; print('Ready', flush=True); time.sleep(600)"
    stray = subprocess.Popen(
        [sys.executable, "-c", idle, "--mark", mark], stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        assert stray.stdout.readline() == b"Ready\n"
        code, output = site("reconcile.yml", "--check", "--diff")
        assert code == 0, output
        assert f"hold unknown: process {stray.pid}" in output
        code, output = site("reconcile.yml", "-e", "confirmed=true", "--check", "--diff")
        assert f"+destroy unknown: process {stray.pid}" in output
        assert stray.poll() is None
        code, output = site("reconcile.yml", "-e", "confirmed=true")
        assert code == 0, output
        assert stray.wait(60) != 0
        code, output = site("reconcile.yml")
        assert code == 0, output
        assert "Nothing leaks." in output
    finally:
        stray.stdout.close()
        if stray.poll() is None:
            os.killpg(stray.pid, 9)
            stray.wait()
