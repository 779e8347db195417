"""Instances on Windows: started once, known for sure, ended for sure; with real agents."""

from __future__ import annotations

import json
import subprocess
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from peers import wine

from hostler_agent.instances import reply
from hostler_hub.drivers import agent_archive
from hostler_hub.runtime.ids import new_ulid

pytestmark = pytest.mark.peer("wine")

HUB, OTHER_HUB = new_ulid(), new_ulid()
DEMAND_START, DOES_NOT_EXIST = 3, 1060
NONCE = "0123456789abcdef"


class Host:
    """A machine's directory of agents, driven as a hub does: one process for every act."""

    def __init__(self, windows: wine.Windows, directory: Path, agent: Path) -> None:
        self.windows = windows
        self.directory = directory
        self.agent = agent

    def call(self, action: str, **request: Any) -> dict[str, Any]:
        """The reply; a refusal is in it as `error`."""
        here = wine.windows_path(self.directory)
        body = json.dumps({"directory": here, "hub": HUB, **request})
        words = ["-I", "-S", wine.windows_path(self.agent), "host", action, "--reply", NONCE]
        process = self.windows.start(
            *words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        said = _talk(process, body.encode())
        found = reply.find(NONCE, said)
        assert found is not None, said
        return found

    def start(self, instance: str, **request: Any) -> dict[str, Any]:
        """As a hub starts one; its agent finds nobody to talk to."""
        config = {"hub": "ws://127.0.0.1:9", "name": "w-1", "instance": instance, "epoch": 1}
        given = {"instance": instance, "epoch": 1, "config": config, "token": "a-token"}
        return self.call("start", **{**given, "way": "detached", **request})

    def stop(self, instance: str, **request: Any) -> dict[str, Any]:
        return self.call("stop", **{"instance": instance, "containment": "auto", **request})

    def instances(self, **request: Any) -> list[str]:
        return [each["instance"] for each in self.call("list", **request)["instances"]]

    def of(self, instance: str) -> Path:
        return self.directory / "instances" / instance


def _talk(process: subprocess.Popen[bytes], body: bytes) -> bytes:
    """What it answers; what it has started may keep the pipe open, but not longer than itself."""
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdin, process.stdout:
        process.stdin.write(body)
        process.stdin.close()
        said = b""
        while chunk := process.stdout.read1(65536):
            said += chunk
            if reply.find(NONCE, said) is not None:
                break
        process.wait(timeout=60)
    return said


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:  # the agent, which has just begun, has given it another name
        return b""


@pytest.fixture(scope="session")
def archived(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    made = agent_archive.install(tmp_path_factory.mktemp("archive"))
    return made.path, made.sha256


@pytest.fixture
def host(windows: wine.Windows, archived: tuple[Path, str], tmp_path: Path) -> Iterator[Host]:
    made = Host(windows, tmp_path / "hostler", archived[0])
    yield made
    for instance in made.instances():
        made.stop(instance)


def test_the_agent_is_installed_once_under_its_digest(
    windows: wine.Windows, archived: tuple[Path, str], tmp_path: Path
) -> None:
    pushed = tmp_path / "pushed.pyz"
    pushed.write_bytes(archived[0].read_bytes())
    host = Host(windows, tmp_path / "hostler", pushed)
    wrong = host.call("install", sha256="0" * 64)
    assert "does not have the digest" in wrong["error"]["text"]
    assert not pushed.exists()
    pushed.write_bytes(archived[0].read_bytes())
    installed = host.call("install", sha256=archived[1])["agent"]
    assert installed == wine.windows_path(tmp_path / "hostler" / "agents" / archived[1])
    assert not pushed.exists()
    host.agent = tmp_path / "hostler" / "agents" / archived[1]
    assert host.instances() == []


def test_started_is_running_and_stopped_is_gone(host: Host) -> None:
    instance = new_ulid()
    started = host.start(instance)
    assert started["state"] == "running", started
    seen = host.call("inspect", instance=instance)
    assert (seen["state"], seen["process"]) == ("running", started["process"])
    assert host.start(instance)["process"] == started["process"]
    assert host.instances() == [instance]
    assert host.instances(hub=OTHER_HUB) == []
    assert host.stop(instance) == {"state": "gone", "left": None}
    assert not host.of(instance).exists()
    assert host.call("inspect", instance=instance)["state"] == "gone"
    assert host.instances() == []
    assert host.stop(instance)["state"] == "gone"
    assert host.start(instance)["error"]["kind"] == "gone"  # P11: it arrives after the end


def test_V14_the_token_is_in_a_private_file_alone(host: Host) -> None:
    instance = new_ulid()
    host.start(instance, token="a-token-of-no-use", environment={"EXTRA": "yes"})
    files = [path for path in host.directory.rglob("*") if path.is_file()]
    holding = [path for path in files if b"a-token-of-no-use" in _read(path)]
    assert [path.name for path in holding] == ["token"]
    for each in (holding[0], host.directory, host.of(instance)):
        assert each.stat().st_mode & 0o007 == 0
    host.stop(instance)


def test_P12_many_starts_at_once_start_one(host: Host) -> None:
    instance = new_ulid()
    host.call("list")
    with ThreadPoolExecutor(3) as threads:
        replies = list(threads.map(lambda _: host.start(instance), range(3)))
    assert len({reply["process"]["pid"] for reply in replies}) == 1
    host.stop(instance)


def test_P7_what_an_agent_said_last_is_evidence(host: Host) -> None:
    instance = new_ulid()
    config = {"hub": "http://no-such-scheme", "name": "w-1", "instance": instance, "epoch": 1}
    host.start(instance, config=config)
    seen = host.call("inspect", instance=instance)
    deadline = time.monotonic() + 60
    while seen["state"] != "gone" and time.monotonic() < deadline:
        seen = host.call("inspect", instance=instance)
    assert "option 'hub' must be a ws:// or wss:// URL" in seen["words"]
    texts = host.call("evidence", instance=instance)["texts"]
    assert "wss://" in texts["agent log"]
    assert "python.exe" in texts["processes"]
    assert host.instances() == [instance]  # what it has left is still ours to clear
    host.stop(instance)
    assert host.instances() == []


def test_a_directory_that_is_open_to_others_is_refused(host: Host) -> None:
    host.directory.mkdir(mode=0o755)
    error = host.call("list")["error"]
    assert error["kind"] == "not-permitted"
    assert "icacls" in error["text"]
    host.directory.chmod(0o700)


def test_a_task_that_is_taken_and_never_begins_is_named(host: Host) -> None:
    """Wine's schtasks takes tasks and runs none."""
    instance = new_ulid()
    error = host.start(instance, way="task")["error"]
    assert "option 'start': the task was taken, but did not begin" in error["text"]
    definition = ET.fromstring((host.of(instance) / "task.xml").read_bytes())
    texts = {each.tag.partition("}")[2]: each.text or "" for each in definition.iter()}
    assert texts["LogonType"] == "S4U"
    assert texts["ExecutionTimeLimit"] == "PT0S"
    assert texts["Command"] == wine.windows_path(host.windows.python)
    assert f"--mark {HUB}:{instance}:1" in texts["Arguments"]
    assert "a-token" not in str(texts)
    assert texts["UserId"]
    assert host.stop(instance)["state"] == "gone"


def test_G3_a_service_is_started_once_and_deleted_at_the_end(host: Host) -> None:
    instance = new_ulid()
    started = host.start(instance, way="service", token="a-token-of-no-use")
    assert started["state"] == "running", started
    service = host.windows.call("service.configuration", f"hostler-{instance}")
    assert service["start"] == DEMAND_START
    assert service["account"] == "NT AUTHORITY\\LocalService"
    assert f"--mark {HUB}:{instance}:1" in service["command"]
    assert "a-token" not in str(service)  # V14
    assert host.start(instance, way="service")["process"] == started["process"]
    assert host.call("inspect", instance=instance)["process"] == started["process"]
    assert host.instances() == [instance]
    assert host.instances(hub=OTHER_HUB) == []
    assert host.stop(instance) == {"state": "gone", "left": None}
    assert host.windows.call("service.exists", f"hostler-{instance}") == DOES_NOT_EXIST
    assert not host.of(instance).exists()
    assert host.instances() == []
    assert host.stop(instance)["state"] == "gone"
    assert host.start(instance, way="service")["error"]["kind"] == "gone"  # P11


def test_G3_a_service_that_was_stopped_by_hand_is_gone_and_cleared(host: Host) -> None:
    """Its agent ends by itself, and nothing starts it again."""
    instance = new_ulid()
    host.start(instance, way="service")
    host.windows.call("service.stop", f"hostler-{instance}")
    assert host.windows.call("service.stopped", f"hostler-{instance}") == 0
    seen = host.call("inspect", instance=instance)
    assert seen["state"] == "gone"
    assert "stopping when the running commands have ended" in seen["words"]
    assert host.instances() == [instance]  # the service is still there
    assert host.stop(instance) == {"state": "gone", "left": None}
    assert host.windows.call("service.exists", f"hostler-{instance}") == DOES_NOT_EXIST


def test_P7_a_service_whose_agent_ends_at_once_says_why(host: Host) -> None:
    instance = new_ulid()
    config = {"hub": "http://no-such-scheme", "name": "w-1", "instance": instance, "epoch": 1}
    host.start(instance, config=config, way="service")
    seen = host.call("inspect", instance=instance)
    deadline = time.monotonic() + 60
    while seen["state"] != "gone" and time.monotonic() < deadline:
        seen = host.call("inspect", instance=instance)
    assert "option 'hub' must be a ws:// or wss:// URL" in seen["words"]
    host.stop(instance)
    assert host.windows.call("service.exists", f"hostler-{instance}") == DOES_NOT_EXIST


@pytest.mark.parametrize("has_directory", [True, False])
def test_K3_a_half_installed_service_is_found_by_its_mark_and_removed(
    host: Host, has_directory: bool
) -> None:
    """Whoever was making it died before the start; or somebody has removed its directory."""
    instance, host_directory = new_ulid(), host.directory
    host.call("list")
    if has_directory:
        host.of(instance).mkdir(mode=0o700)
    program, directory = wine.windows_path(host.agent), wine.windows_path(host.of(instance))
    mark = f"{HUB}:{instance}:1"
    command = f'"{program}" host launch "{directory}" --mark {mark} --service'
    host.windows.call("service.create", f"hostler-{instance}", command)
    assert host.call("inspect", instance=instance)["state"] == "gone"
    assert host.instances() == [instance]
    assert host.instances(hub=OTHER_HUB) == []
    host.directory = host_directory.with_name("elsewhere")
    assert host.instances() == []  # that is for who looks there
    host.directory = host_directory
    if has_directory:  # a repeated start takes it over
        assert host.start(instance, way="service")["state"] == "running"
    assert host.stop(instance)["state"] == "gone"
    assert host.windows.call("service.exists", f"hostler-{instance}") == DOES_NOT_EXIST
    assert host.instances() == []


def test_a_way_that_does_not_exist_is_refused(host: Host) -> None:
    error = host.start(new_ulid(), way="magic")["error"]
    assert error["kind"] == "request"
    assert "task, service, detached" in error["text"]
