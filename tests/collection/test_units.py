"""The units as the roles write them: valid, and confined as far as promised."""

import json
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

HUB = {
    "hub_user": "hostler",
    "hub_prefix": "/opt/hostler",
    "hub_home": "/var/lib/hostler",
    "hub_config_dir": "/etc/hostler",
    "hub_secrets": {"rack": "swordfish"},
    "hub_load_credentials": True,
    "hub_memory_max": "2G",
    "hub_local_workers": False,
    "hub_private_users": True,
    "hub_deny_metadata": True,
}
AGENT = {
    "agent_user": "hostler-agent",
    "agent_prefix": "/opt/hostler-agent",
    "agent_config_dir": "/etc/hostler-agent",
    "agent_home": "/var/lib/hostler-agent",
    "agent_python": "/usr/bin/python3",
    "agent_allow_new_privileges": False,
    "agent_run_as": "build_user",
    "agent_account": "root",
}


AS_AGENT = {"agent_run_as": "agent", "agent_account": "hostler-agent"}


@pytest.mark.peer("systemd")
@pytest.mark.parametrize(
    ("role", "unit", "variables", "threshold"),
    [
        ("hub", "hostler-hub.service", HUB, 1.5),
        ("hub", "hostler-hub.service", {**HUB, "hub_local_workers": True}, 6.0),
        ("agent", "hostler-agent@.service", AGENT, 6.0),
        ("agent", "hostler-agent@.service", {**AGENT, **AS_AGENT}, 4.2),
    ],
)
def test_a_unit_is_confined(ansible, tmp_path, role, unit, variables, threshold):
    template = ROOT / "roles" / role / "templates" / f"{unit}.j2"
    task = {"ansible.builtin.template": {"src": str(template), "dest": str(tmp_path / unit)}}
    play = {"hosts": "localhost", "gather_facts": False, "vars": variables, "tasks": [task]}
    (tmp_path / "play.json").write_text(json.dumps([play]))
    done = ansible("ansible-playbook", "-i", "/dev/null", tmp_path / "play.json")
    assert done.returncode == 0, done.stdout
    assert "swordfish" not in (tmp_path / unit).read_text()
    rated = subprocess.run(
        [
            "systemd-analyze",
            "security",
            "--offline=true",
            f"--threshold={threshold * 10:.0f}",
            unit,
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert rated.returncode == 0, rated.stdout[-300:] + rated.stderr
    assert "Unknown key" not in rated.stderr
