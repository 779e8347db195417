"""Module lease against a real hub and real agents: two people, and builds that they wait for."""

import json
import re

import pytest
from collection.test_modules import show, shown, task
from e2e.hub_process import HubProcess

pytestmark = pytest.mark.timeout(300)

GROUPS = {"leased": "hostler_lease is not none"}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A real hub, and how modules reach it as its admin."""
    with HubProcess.running(tmp_path_factory.mktemp("site") / "hub") as hub:
        yield {"hub_state_dir": str(hub.state_dir)}


@pytest.fixture
def run(site, play):
    return lambda tasks, *arguments: play(tasks, *arguments, defaults=site)


def lease(register="result", **options):
    return task("lease", register, **options)


def by(name, one, tmp_path):
    """The task as somebody who may submit builds."""
    (options,) = (value for key, value in one.items() if key.startswith("hostler.fleet."))
    options["hub_token_file"] = str(tmp_path / f"{name}.token")
    return one


def known(name, tmp_path):
    """Whoever it is, known to the hub for one test only: it tells each token once."""
    path = str(tmp_path / f"{name}.token")
    return task("token", name=name, role="submitter", dest=path)


def test_acquire_renew_and_release_each_change_things_once(run):
    state = "[result.changed, result.lease.state | default('none')]"
    look = task("worker_info", "seen", name="lone", fields=["lease"])
    tasks = [
        task("worker", name="lone", driver="local", run_as="agent"),
        lease(worker="lone", reason="debugging", ttl_s=600),
        show(state),
        lease(worker="lone"),
        show(state),
        show("result.lease.connection.facts.hostname is truthy"),
        look,
        show("[seen.workers[0].lease.holder, seen.workers[0].lease.reason]"),
        lease(worker="lone", state="renewed", ttl_s=1200, reason="still at it"),
        show("[result.changed, result.lease.ttl_s, result.lease.reason]"),
        lease(worker="lone", state="released"),
        show("[result.changed, result.lease.end_reason]"),
        lease(worker="lone", state="released"),
        show(state),
    ]
    code, output = run(tasks)
    assert code == 0, output
    assert shown(output) == [
        [True, "held"],
        [False, "held"],
        True,
        ["admin", "debugging"],
        [True, 1200, "still at it"],
        [True, "released"],
        [False, "none"],
    ]


def test_the_live_inventory_tells_who_has_a_worker_until_it_is_given_back(
    run, site, ansible, tmp_path
):
    """What people write as a reason is no template."""
    path = tmp_path / "live.hostler.yml"
    options = {"plugin": "hostler.fleet.workers", **site, "groups": GROUPS}
    path.write_text(json.dumps(options))

    def listed():
        done = ansible("ansible-inventory", "-i", path, "--list")
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        variables = found["_meta"]["hostvars"]["shown"]
        return variables["hostler_lease"], found.get("leased", {}).get("hosts", [])

    reason = "{{ lookup('ansible.builtin.pipe', 'false') }}"
    define = task("worker", name="shown", driver="local", run_as="agent")
    code, output = run([define])
    assert code == 0, output
    assert listed() == (None, [])

    quoted = "{% raw %}" + reason + "{% endraw %}"
    take = by("bea", lease("mine", worker="shown", ttl_s=600, reason=quoted), tmp_path)
    code, output = run([known("bea", tmp_path), take, show("mine.lease")])
    assert code == 0, output
    held, leased = listed()
    (taken,) = shown(output)
    assert leased == ["shown"]
    assert {key: plain(held[key]) for key in ("id", "state", "holder", "reason", "until")} == {
        "id": taken["id"],
        "state": "held",
        "holder": "bea",
        "reason": reason,
        "until": taken["until"],
    }

    give_back = by("bea", lease(worker="shown", state="released"), tmp_path)
    code, output = run([give_back])
    assert code == 0, output
    assert listed() == (None, [])


def plain(told):
    """ansible-inventory marks what is never taken as a template."""
    return told["__ansible_unsafe"] if isinstance(told, dict) else told


def test_check_mode_changes_nothing_and_the_diff_says_what_would(run):
    code, output = run([task("worker", name="dry", driver="local")])
    assert code == 0, output
    code, output = run([lease(worker="dry", reason="try")], "--check", "--diff")
    assert code == 0, output
    assert "-nobody" in output
    assert "+you, held for 3600 s: try" in output
    code, output = run([lease(worker="dry", state="released"), show("result.changed")])
    assert shown(output) == [False]


def test_V5_a_build_is_waited_for_and_the_next_one_told_who_has_the_worker(run, tmp_path):
    gate = tmp_path / "gate"
    started = tmp_path / "started"
    command = f"echo > {started}; while [ ! -e {gate} ]; do sleep 0.1; done"
    steps, quick = [{"name": "s", "command": command}], [{"name": "s", "command": "true"}]
    build = {"requires": {"worker": "busy"}, "wait": False}
    tasks = [
        known("ann", tmp_path),
        task("worker", name="busy", driver="local", run_as="agent", max_builds=2),
        task("build", "first", steps=steps, **build),
        {"ansible.builtin.wait_for": {"path": str(started), "timeout": 120}},
        lease("refused", worker="busy", wait_s=0) | {"ignore_errors": True},
        show("refused.msg"),
        lease("late", worker="busy", wait_s=1) | {"ignore_errors": True},
        show("late.msg"),
        {"ansible.builtin.file": {"path": str(gate), "state": "touch"}},
        by("ann", lease("hers", worker="busy", reason="debugging"), tmp_path),
        task("build_info", "over", id="{{ first.build.id }}"),
        show("over.builds[0].state"),
        task("build", "second", steps=quick, **build),
        task("build_info", "why", id="{{ second.build.id }}"),
        show("why.builds[0].why"),
        lease("mine", worker="busy", state="released") | {"ignore_errors": True},
        show("mine.msg"),
        by("ann", lease("hers", worker="busy", state="released"), tmp_path),
        task("build", "third", steps=quick, requires={"worker": "busy"}),
        show("third.build.state"),
    ]
    code, output = run(tasks)
    assert code == 0, output
    refused, late, over, why, mine, third = shown(output)
    assert refused.endswith("worker busy cannot be leased at once: 1 build on it must end first")
    assert late.startswith("worker busy was not leased: not free within 1 s (1 build on it")
    assert over == "success"
    assert re.search(r"it is leased by ann until [0-9: -]+ UTC: debugging", why), why
    assert "is ann's; an operator ends it with force" in mine
    assert third == "success"
