"""Tasks that ask the hub run on the controller as the caller, whatever the inventory says of its
hosts: `localhost` listed as a machine elsewhere, become, interpreters, the strategy.
"""

import re
from pathlib import Path

import pytest
import yaml
from collection.conftest import TOKEN

ROOT = Path(__file__).parents[2]
OURS = re.compile(r"hostler\.fleet\.\w+")
HERE = {
    "ansible_connection": "local",
    "ansible_become": False,
    "ansible_python_interpreter": "{{ ansible_playbook_python }}",
}
NO_TASKS = {"hostler.fleet.fleet"}
BLOCKS = ("block", "rescue", "always")
# They do their work where a play includes them: on a worker's or the hub's own machine.
ROLES_OF_MACHINES = {"agent", "hub"}

HOSTILE = """\
all:
  vars:
    ansible_connection: winrm
    ansible_become: true
    ansible_become_user: nobody-of-that-name
    ansible_python_interpreter: /nonexistent/python
    ansible_remote_tmp: /nonexistent/tmp
  children:
    workers:
      hosts:
        w1: {ansible_host: 192.0.2.1}
        w2: {ansible_host: 192.0.2.2}
      vars: {hostler_driver: local}
  hosts:
    localhost:
      ansible_connection: ssh
      ansible_host: 192.0.2.3
"""


def tasks(found, context):
    """Every task below a list of tasks, with the vars that it and its blocks give."""
    for task in found or []:
        inner = {**context, **{key: task[key] for key in ("delegate_to", "become") if key in task}}
        inner["vars"] = {**context["vars"], **(task.get("vars") or {})}
        if any(part in task for part in BLOCKS):
            for part in BLOCKS:
                yield from tasks(task.get(part), inner)
        elif any(OURS.fullmatch(key) and key not in NO_TASKS for key in task):
            yield task, inner


def files():
    for path in sorted((ROOT / "playbooks").glob("*.yml")):
        for play in yaml.safe_load(path.read_text()):
            context = {"vars": play.get("vars") or {}, "delegate_to": play["hosts"]}
            yield path, play, [*play.get("pre_tasks", []), *play["tasks"]], context
    for path in sorted((ROOT / "roles").glob("*/tasks/*.yml")):
        if path.parts[-3] not in ROLES_OF_MACHINES:
            yield path, None, yaml.safe_load(path.read_text()), {"vars": {}}


@pytest.mark.parametrize(
    ("path", "play", "found", "context"),
    [pytest.param(*each, id=str(each[0].relative_to(ROOT))) for each in files()],
)
def test_each_task_that_asks_the_hub_says_where_it_runs(path, play, found, context):
    for task, inner in tasks(found, context):
        missing = {key for key, value in HERE.items() if inner["vars"].get(key) != value}
        assert not missing, f"{path.name}: {task['name']}: {missing}"
        assert inner.get("delegate_to") == "localhost", f"{path.name}: {task['name']}"
    if play is not None:
        assert play.get("strategy") == "linear", f"{path.name}: run_once means nothing to others"


@pytest.mark.parametrize(
    "playbook", ["pause.yml", "resume.yml", "shutdown.yml", "missing_check.yml"]
)
def test_plays_work_with_any_inventory(ansible, hub, tmp_path, playbook):
    inventory = tmp_path / "hostile.yml"
    inventory.write_text(HOSTILE)
    definition = {"driver": "local", "labels": []}
    hub.define({"workers": [{"name": n, **definition} for n in ("w1", "w2")], "dry_run": False})
    environ = {"HOSTLER_URL": hub.url, "HOSTLER_TOKEN": TOKEN, "ANSIBLE_STRATEGY": "free"}
    done = ansible("ansible-playbook", "-i", inventory, f"playbooks/{playbook}", env=environ)
    assert done.returncode == 0, done.stdout + done.stderr
