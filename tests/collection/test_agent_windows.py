"""The role `agent` on Windows: its tasks and its commands run, on Wine.

Ansible's modules for Windows are PowerShell, which Wine does not have: stand-ins of their names
(`windows/`) do what they are told from this side. What the real ones take is held against their own
documentation.
"""

import asyncio
import json
import re
from pathlib import Path

import pytest
import yaml
from e2e.api import Api
from e2e.hub_process import HubProcess
from peers import wine

from hostler_hub.drivers import agent_archive

ROOT = Path(__file__).parents[2]
ROLE = ROOT / "roles" / "agent"
STAND_INS = Path(__file__).parent / "windows"
TASKS = sorted((ROLE / "tasks").glob("*windows*.yml"))
PASSWORD = "secret password 7f3a"
SERVICE, DOES_NOT_EXIST = "hostler-agent-win-1", 1060


@pytest.fixture
def hub(tmp_path):
    with HubProcess.running(tmp_path / "hub") as hub:
        yield hub


@pytest.fixture
def role(ansible, tmp_path, hub):
    """role("main", "--check", agent_state="stopped") -> (changed tasks, output)."""
    made = wine.windows()
    there = wine.windows_path(tmp_path / "drive")
    variables = {
        "agent_hub_url": hub.agents_url,
        "agent_password": PASSWORD,
        "agent_archive": str(agent_archive.install(tmp_path / "archive").path),
        "agent_python": wine.windows_path(made.python),
        "agent_prefix": f"{there}\\Program Files\\hostler-agent",
        "agent_config_dir": f"{there}\\ProgramData\\hostler-agent",
        "agent_home": f"{there}\\hostler",
        "ansible_connection": "local",
        "ansible_python_interpreter": "{{ ansible_playbook_python }}",
    }
    environment = {
        "ANSIBLE_COLLECTIONS_PATH": f"{STAND_INS}:{ROOT / 'collections'}",
        "PYTHONPATH": str(ROOT / "tests"),
    }

    def run(tasks_from, *arguments, **changes):
        facts = {"ansible.builtin.set_fact": {"os_family": "Windows", "cacheable": True}}
        included = {"name": "hostler.fleet.agent", "tasks_from": tasks_from}
        play = {
            "hosts": "all",
            "gather_facts": False,
            "vars": {**variables, **changes},
            "tasks": [facts, {"ansible.builtin.include_role": included}],
        }
        path = tmp_path / "play.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps([play]))
        done = ansible("ansible-playbook", "-i", "win-1,", path, *arguments, env=environment)
        output = done.stdout + done.stderr
        assert done.returncode == 0, output
        return int(re.search(r"changed=(\d+)", output)[1]), output

    yield run
    if wine.windows().call("service.exists", SERVICE) != DOES_NOT_EXIST:
        run("uninstall", agent_purge=True)


@pytest.mark.peer("wine")
@pytest.mark.timeout(300)
async def test_a_permanent_worker_is_installed_once_runs_builds_and_is_removed(role, hub, tmp_path):
    drive, status = tmp_path / "drive", wine.windows().call
    drive.mkdir()
    changed, _ = await asyncio.to_thread(role, "main", "--check")
    assert changed == 2  # the program and its directory; the rest cannot be asked yet
    assert list(drive.iterdir()) == []
    async with Api(hub.url, hub.token) as api:
        await api.define("win-1", driver="permanent", password=PASSWORD)
        changed, output = await asyncio.to_thread(role, "main", "-vvvv", "--diff")
        assert changed
        assert PASSWORD not in output  # V14
        build = await api.submit("ver", worker="win-1")
        assert (await api.ended(build))["state"] == "success"
        assert b"Windows" in await api.output(build)
    config = drive / "ProgramData" / "hostler-agent" / "win-1"
    assert config.stat().st_mode & 0o007 == 0  # as Wine shows what is not for everybody
    assert json.loads((config / "agent.json").read_text())["token_file"] == "token"
    command = status("service.configuration", SERVICE)
    assert command["account"] == f"NT SERVICE\\{SERVICE}"
    assert PASSWORD not in str(command)
    assert (await asyncio.to_thread(role, "main"))[0] == 0
    changed, _ = await asyncio.to_thread(role, "uninstall", agent_purge=True)
    assert changed
    assert status("service.exists", SERVICE) == DOES_NOT_EXIST
    assert [path for path in drive.rglob("*") if path.is_file()] == []
    assert (await asyncio.to_thread(role, "uninstall", agent_purge=True))[0] == 0


@pytest.mark.peer("ansible-windows")
def test_what_the_tasks_say_is_what_the_real_modules_take(ansible, tmp_path):
    asked = {}
    for path in TASKS:
        for task in yaml.safe_load(path.read_text()):
            for name in task:
                if name.startswith("ansible.windows."):
                    asked.setdefault(name, {}).update(task[name])
    assert len(asked) == 4
    done = ansible("ansible-doc", "--json", *asked)
    documented = json.loads(done.stdout)
    for name, options in asked.items():
        known = documented[name]["doc"]["options"]
        assert set(options) <= set(known), name
        for option, value in options.items():
            choices = known[option].get("choices")
            assert not choices or "{{" in value or value in choices, (name, option)
    play = {
        "hosts": "all",
        "tasks": [{"ansible.builtin.import_tasks": str(path)} for path in TASKS],
    }
    (tmp_path / "play.json").write_text(json.dumps([play]))
    done = ansible(
        "ansible-playbook", "--syntax-check", "-i", "win-1,", tmp_path / "play.json",
        "-e", "agent_state=started",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("system", "place"), [("Windows", "C:\\hostler"), ("Debian", "/var/lib/")])
def test_one_play_has_the_places_of_each_system(ansible, tmp_path, system, place):
    facts = {"ansible.builtin.set_fact": {"os_family": system, "cacheable": True}}
    shown = {"ansible.builtin.debug": {"msg": "{{ [agent_home, agent_prefix, agent_python] }}"}}
    files = [str(ROLE / "defaults" / "main.yml"), str(ROLE / "vars" / "main.yml")]
    play = {"hosts": "localhost", "gather_facts": False, "vars_files": files}
    play["tasks"] = [facts, shown]
    (tmp_path / "play.json").write_text(json.dumps([play]))
    done = ansible("ansible-playbook", "-i", "/dev/null", tmp_path / "play.json")
    assert done.returncode == 0, done.stdout
    assert json.dumps(place)[1:-1] in done.stdout
    assert ("C:\\\\Program Files\\\\hostler-agent" in done.stdout) == (system == "Windows")
