"""A password in Ansible Vault: from the inventory to the hub, and nowhere else."""

import json

import pytest
from collection.test_modules import TOKEN

CANARY = "vaulted-canary-91b7"
VAULT_KEY = "the key of the vault"
PLAY = [
    {
        "hosts": "workers",
        "gather_facts": False,
        "tasks": [
            {
                "name": "Define the workers of the inventory",
                "hostler.fleet.worker": {
                    "workers": "{{ hostvars | hostler.fleet.definitions(ansible_play_hosts_all) }}"
                },
                "run_once": True,
                "delegate_to": "localhost",
            }
        ],
    }
]


@pytest.fixture
def vault(ansible, tmp_path):
    """A directory of an inventory whose worker's password is encrypted."""
    key = tmp_path / "key"
    key.write_text(VAULT_KEY)
    key.chmod(0o600)
    made = ansible(
        "ansible-vault",
        *("encrypt_string", "--vault-password-file", key, "--name", "hostler_password", CANARY),
    )
    assert made.returncode == 0, made.stderr
    inventory = tmp_path / "inventory"
    (inventory / "group_vars").mkdir(parents=True)
    (inventory / "hosts.ini").write_text("[workers]\nmac-1\n")
    rest = "hostler_driver: permanent\n"
    (inventory / "group_vars" / "workers.yml").write_text(made.stdout + rest)
    return key


def test_V14_a_vaulted_password_reaches_the_hub_and_no_output(ansible, hub, vault, tmp_path):
    (tmp_path / "play.yml").write_text(json.dumps(PLAY))
    token = tmp_path / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    where = ["-i", tmp_path / "inventory", tmp_path / "play.yml"]
    access = {"HOSTLER_URL": hub.url, "HOSTLER_TOKEN_FILE": str(token)}
    loud = ["-vvvv", "--diff", "--vault-password-file", vault]
    done = ansible("ansible-playbook", *where, *loud, env=access)
    assert done.returncode == 0, done.stdout + done.stderr
    (sent,) = hub.requests[0][2]["workers"]
    assert sent["password"] == CANARY
    assert CANARY not in done.stdout + done.stderr

    done = ansible("ansible-playbook", *where, "-vvvv", env=access)
    assert done.returncode != 0, "without the vault's key nothing is sent"
    assert len(hub.requests) == 1
