"""The playbooks as people run them, with a real hub and real agents on this machine."""

import json
import os
import re
import signal

import pytest
from ansible_collections.hostler.fleet.plugins.modules import process_info

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def site(ansible, tmp_path):
    """Runs a playbook with a hub of its own: site("pause.yml", "-e", "reason=x") -> (rc, output).

    Whatever a test leaves is taken down at its end, after which nothing may be left.
    """
    state_dir = tmp_path / "hub"

    def run(playbook, *arguments):
        access = ["-e", f"hub_state_dir={state_dir}", "-e", "hub_port=0"]
        done = ansible("ansible-playbook", f"playbooks/{playbook}", *access, *arguments)
        return done.returncode, done.stdout + done.stderr

    run.state_dir = state_dir
    yield run
    if process_info.find(str(state_dir), None, []):
        code, output = run("down.yml")
        assert code == 0, output
    assert process_info.find(str(state_dir), None, []) == []


def changed(output):
    return int(re.search(r"changed=(\d+)", output)[1])


def worker_lines(output):
    """{name: (mode, state)} of the last table that was shown."""
    lines = re.findall(r"^ +(local-\d) +(\w+) +(\w+) ", output, re.MULTILINE)
    return {name: (mode, state) for name, mode, state in lines}


def test_from_the_inventory_to_a_build_and_back(site):
    code, output = site("provision.yml", "--check")
    assert code == 0, output
    assert not site.state_dir.exists()

    code, output = site("provision.yml")
    assert code == 0, output
    assert "Compiling 'plugins/modules/worker_state.py'..." in output
    assert worker_lines(output)["local-1"] == ("active", "substantiated")
    assert worker_lines(output)["local-2"] == ("active", "latent")
    assert "What to try next" in output

    code, output = site("provision.yml")
    assert code == 0, output
    assert changed(output) == 1, "only the smoke build is a change"

    code, output = site("pause.yml", "-e", "reason=lunch", "--limit", "local-2")
    assert code == 0, output
    assert worker_lines(output) == {"local-2": ("paused", "latent")}
    assert "lunch" in output
    assert changed(output) == 1

    code, output = site("pause.yml", "-e", "reason=lunch", "--limit", "local-2")
    assert changed(output) == 0

    code, output = site("down.yml")
    assert code == 0, output
    assert "No hub, no agent and no job" in output

    code, output = site("provision.yml", "-e", "smoke=false")
    assert code == 0, output
    modes = {name: mode for name, (mode, _state) in worker_lines(output).items()}
    assert modes == {"local-1": "active", "local-2": "stopped", "local-3": "active"}


def test_a_shutdown_says_what_is_left_and_force_ends_it(site, play, tmp_path):
    # Its build tells this test by a file that it has begun.
    mine = ["-e", "hostler_run_as=agent"]
    code, output = site("provision.yml", "-e", "smoke=false", "-e", "prestart=local-1", *mine)
    assert code == 0, output
    started = tmp_path / "started"
    command = f"echo > {started}; exec sleep 600"
    build = {
        "steps": [{"name": "long", "command": ["sh", "-c", command]}],
        "requires": {"worker": "local-1"},
        "wait": False,
    }
    wait = {"ansible.builtin.wait_for": {"path": str(started), "timeout": 120}}
    access = {"hub_state_dir": str(site.state_dir)}
    code, output = play([{"hostler.fleet.build": build}, wait], defaults=access)
    assert code == 0, output

    code, output = site("shutdown.yml", "-e", "deadline=0.5")
    assert code == 2
    assert "1 worker is left undone: local-1 (substantiated, 1 build running)" in output
    assert worker_lines(output)["local-1"] == ("draining", "substantiated")
    assert worker_lines(output)["local-2"] == ("draining", "latent")

    code, output = site("shutdown.yml", "-e", "mode=force")
    assert code == 0, output
    assert set(worker_lines(output).values()) == {("stopped", "latent")}

    # By what they are; a survey's empty answer is no answer.
    survey = {"select": {"mode": ["stopped"]}, "reason": ""}
    code, output = site("resume.yml", "-e", json.dumps(survey))
    assert code == 0, output
    assert {mode for mode, _state in worker_lines(output).values()} == {"active"}


def test_a_killed_hub_leaves_nothing_after_the_way_down(site):
    code, output = site("provision.yml", "-e", "smoke=false", "-e", "prestart=all")
    assert code == 0, output
    assert {state for _mode, state in worker_lines(output).values()} == {"substantiated"}
    os.kill(json.loads((site.state_dir / "hub.json").read_text())["pid"], signal.SIGKILL)

    code, output = site("status.yml")
    assert code == 2
    assert "cannot be reached" in output

    code, output = site("down.yml")
    assert code == 0, output
    assert "No hub, no agent and no job" in output


def test_missing_workers_are_listed(site, tmp_path):
    code, output = site("provision.yml", "-e", "smoke=false", "--limit", "local-1,local-2")
    assert code == 0, output
    code, output = site("missing_check.yml", "--limit", "local-1,local-2")
    assert code == 0, output
    code, output = site("missing_check.yml", "-e", "repair=false")
    assert code == 2
    assert "1 of 3 workers are missing: local-3" in output


@pytest.mark.parametrize(
    ("playbook", "arguments", "words"),
    [
        ("shutdown.yml", ["-e", "mode=hard"], "give graceful (finish what runs) or force"),
        ("pause.yml", [], "no hub was started from"),
        ("provision.yml", ["-e", "hub_executable=/nowhere/hub"], "/nowhere/hub is no program"),
        ("provision.yml", ["-e", "hub_port=many"], "argument 'hub_port'"),
        ("provision.yml", ["-e", "hub_state_dir=/proc/x"], "/proc/x cannot be written"),
        ("provision.yml", ["-e", "hostler_max_build=2"], "hostler_max_build is no option"),
    ],
)
def test_bad_input_gets_one_clear_message(site, playbook, arguments, words):
    code, output = site(playbook, *arguments)
    assert code == 2
    assert words in " ".join(output.split())
    assert output.count("[ERROR]") == 1
