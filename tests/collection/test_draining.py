"""Modules drain and rejoin, and the role over them, with a real hub and real agents."""

import json
import re

import pytest
from collection.test_modules import show, shown, task
from e2e.hub_process import HubProcess

pytestmark = pytest.mark.timeout(300)
NAMES = ["d-1", "d-2", "d-3"]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with HubProcess.running(tmp_path_factory.mktemp("site") / "hub") as hub:
        yield hub


@pytest.fixture
def run(site, play):
    """Runs tasks on three active workers."""

    def run(tasks, *arguments):
        workers = [{"name": name, "driver": "local", "run_as": "agent"} for name in NAMES]
        ready = [
            task("worker", "defined", workers=workers),
            task("worker_state", "ready", names=NAMES, mode="active"),
        ]
        return play([*ready, *tasks], *arguments, defaults={"hub_state_dir": str(site.state_dir)})

    return run


def modes():
    looked = task("worker_info", "seen", names=NAMES, fields=["mode", "mode_reason"])
    values = "seen.workers | map(attribute='mode_reason') | map('default', '-', true) | list"
    return [looked, show("[seen.workers | map(attribute='mode') | list, " + values + "]")]


def test_only_our_own_pauses_are_ended_also_after_a_play_that_was_broken_off(run):
    tasks = [
        task("worker_state", "theirs", names=["d-3"], mode="paused", reason="broken disk"),
        task("drain", names=NAMES, reason="patch"),
        show("[result.changed, result.paused, result.left_alone]"),
        task("drain", "again", names=NAMES, reason="patch"),
        show("[again.changed, again.paused]"),
        task("rejoin", "other", names=NAMES, reason="another patch"),
        show("[other.changed, other.left_alone]"),
        task("rejoin", names=NAMES, reason="patch", failed={"d-2": "no space", "d-1": ""}),
        show("[result.resumed, result.kept, result.left_alone]"),
        *modes(),
        task("rejoin", names=NAMES, reason="patch", failed={"d-2": "no space"}),
        show("result.changed"),
        task("rejoin", names=NAMES, reason="patch"),
        show("result.resumed"),
    ]
    code, output = run(tasks)
    assert code == 0, output
    entered, again, other, left, seen, same, fixed = shown(output)
    assert entered == [True, ["d-1", "d-2"], {"d-3": "paused by admin: broken disk"}]
    assert again == [False, ["d-1", "d-2"]]
    assert other == [False, NAMES]
    assert left == [["d-1"], {"d-2": "no space"}, ["d-3"]]
    modes_seen, reasons = seen
    assert modes_seen == ["active", "paused", "paused"]
    assert reasons[1:] == ["patch: no space", "broken disk"]
    assert same is False
    assert fixed == ["d-2"]


def test_check_mode_changes_nothing(run):
    tasks = [
        task("drain", names=NAMES, reason="patch") | {"check_mode": True, "diff": True},
        show("[result.changed, result.paused]"),
        *modes(),
    ]
    code, output = run(tasks)
    assert code == 0, output
    assert shown(output)[0] == [True, NAMES]
    assert shown(output)[1][0] == ["active"] * 3
    assert "+paused: patch" in output


def test_at_the_deadline_it_says_who_holds_what_and_undoes_the_pause(run, tmp_path):
    gate, started = tmp_path / "gate", tmp_path / "started"
    command = f"echo > {started}; while [ ! -e {gate} ]; do sleep 0.1; done"
    build = {"steps": [{"name": "s", "command": command}], "requires": {"worker": "d-1"}}
    tasks = [
        task("build", "first", name="nightly", wait=False, **build),
        {"ansible.builtin.wait_for": {"path": str(started), "timeout": 120}},
        task("lease", "mine", worker="d-2", reason="debugging"),
        task("drain", names=NAMES, reason="patch", deadline_s=0.5) | {"ignore_errors": True},
        show("[result.msg, result.left, result.paused]"),
        *modes(),
        task("drain", names=["d-1"], reason="patch", deadline_s=0.1, on_deadline="keep")
        | {"ignore_errors": True},
        show("[result.msg, result.paused]"),
        {"ansible.builtin.file": {"path": str(gate), "state": "touch"}},
        task("drain", names=["d-1"], reason="patch", deadline_s=120),
        show("result.paused"),
        task("build_info", "over", id="{{ first.build.id }}"),
        show("over.builds[0].state"),
        task("lease", "mine", worker="d-2", state="released"),
    ]
    code, output = run(tasks)
    assert code == 0, output
    late, seen, kept, drained, build = shown(output)
    assert late[0].startswith("after 0.5 s 2 workers are left undone: d-1 (build ")
    assert late[0].endswith("the pause was undone")
    assert "(nightly, by admin)" in late[1]["d-1"]
    assert late[1]["d-2"].startswith("leased by admin until")
    assert late[1]["d-2"].endswith("debugging")
    assert late[2] == []
    assert seen[0] == ["active"] * 3
    assert kept[0].endswith("they stay paused")
    assert kept[1] == drained == ["d-1"]
    assert build == "success"


def test_the_role_keeps_what_went_wrong_paused_and_gives_the_rest_back(
    run, ansible, site, tmp_path
):
    code, output = run([])
    assert code == 0, output
    (tmp_path / "tasks.yml").write_text(
        json.dumps(
            [
                {
                    "name": "Compile",
                    "ansible.builtin.assert": {
                        "that": "inventory_hostname != 'd-2'",
                        "fail_msg": "no compiler",
                    },
                }
            ]
        )
    )
    (tmp_path / "hosts.json").write_text(json.dumps({"workers": {"hosts": dict.fromkeys(NAMES)}}))
    access = ["-i", tmp_path / "hosts.json", "-e", f"hub_state_dir={site.state_dir}"]
    patch = [
        "playbooks/patch.yml",
        *access,
        "-e",
        f"tasks_file={tmp_path}/tasks.yml",
        "-e",
        "batch=3",
    ]
    done = ansible("ansible-playbook", *patch, "-e", "reason=patch")
    assert done.returncode == 2, done.stdout
    assert "Compile: no compiler (the worker stays paused)" in " ".join(done.stdout.split())
    status = ansible("ansible-playbook", "playbooks/status.yml", *access)
    lines = dict(re.findall(r"^ +(d-\d) +(\w+ .*)$", status.stdout, re.MULTILINE))
    assert lines["d-1"].split()[0] == lines["d-3"].split()[0] == "active"
    assert "patch: Compile: no compiler" in lines["d-2"]
    (tmp_path / "tasks.yml").write_text("[]")
    done = ansible("ansible-playbook", *patch, "-e", "reason=patch")
    assert done.returncode == 0, done.stdout
