"""Bad input as its owner reads it: one text, in the module, the decision log and the incident.

It names the driver, the option, the provider's own words and what to do. What needs a provider that
answers (an image without Python, a full disk, wrong credentials) is in tests/hub/drivers.
"""

import paramiko
import pytest
from collection.test_modules import task
from e2e.hub_process import HubProcess

pytestmark = pytest.mark.timeout(300)

NOWHERE = {
    "docker": (
        {"image": "debian:12", "docker_host": "unix:///nowhere/docker.sock"},
        [
            "docker: no answer from unix:///nowhere/docker.sock",
            "No such file or directory",
            "does the daemon run there",
            "driver_options.docker_host",
        ],
    ),
    "ssh": (
        {"host": "127.0.0.1", "port": 1, "user": "build", "key": {"file": "key"}},
        [
            "ssh: build@127.0.0.1:1",
            "Connection refused",
            "is its sshd running",
            "options host and port",
        ],
    ),
}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    hub = HubProcess(tmp_path_factory.mktemp("site") / "hub")
    secrets = hub.state_dir / "secrets"
    secrets.mkdir(parents=True, mode=0o700)
    try:
        hub.start()
        yield hub
        hub.stop()
        assert hub.leftovers() == []
    finally:
        hub.close()


@pytest.mark.parametrize("driver", NOWHERE)
def test_a_provider_that_is_not_there_is_told_alike_everywhere(site, play, driver):
    options, words = NOWHERE[driver]
    if driver == "ssh":
        make_key(site.state_dir / "secrets" / "key")
    name = f"lost-{driver}"
    start = task("worker", names=[name], state="substantiated", deadline_s=4)
    tasks = [
        task("worker", name=name, driver=driver, driver_options=options),
        {**start, "ignore_errors": True},
        # The second failure in a row is the one that people are told of.
        task("worker_state", names=[name], mode="active"),
        {**start, "ignore_errors": True},
        task("decision_info", "decided", worker=name, kind="quarantine"),
        task("incident_info", "told", worker=name),
        task("worker_info", "seen", names=[name], fields=["last_error"]),
        {
            "ansible.builtin.debug": {
                "msg": {
                    "module": "{{ result.msg }}",
                    "decision": "{{ decided.decisions[0].text }}",
                    "incident": "{{ told.incidents[0].reason }}",
                    "worker": "{{ seen.workers[0].last_error }}",
                }
            }
        },
    ]
    code, output = play(tasks, defaults={"hub_state_dir": str(site.state_dir)})
    assert code == 0, output
    told = output.rsplit("TASK [", 1)[1]
    for where in ("module", "decision", "incident", "worker"):
        (line,) = [line for line in told.splitlines() if line.strip().startswith(f'"{where}"')]
        for word in words:
            assert word in line, line


def make_key(path):
    paramiko.ECDSAKey.generate().write_private_key_file(str(path))
    path.chmod(0o600)
