from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hostler_agent.config import is_loopback, load
from hostler_agent.errors import ConfigurationError

GOOD = {
    "hub": "ws://127.0.0.1:8010/api/v1/agents/connect",
    "name": "docker-01",
    "instance": "01JABCDEFGHJKMNPQRSTVWXYZ0",
    "epoch": 3,
    "workdir": "work",
    "token_file": "token",
    "hub_socket": None,
    "ca_file": None,
    "containment": "auto",
}


def write(directory: Path, **changes: Any) -> Path:
    token = directory / "token"
    token.write_text("s3cret\n")
    token.chmod(0o600)
    path = directory / "agent.json"
    path.write_text(json.dumps({**GOOD, **changes}))
    path.chmod(0o600)
    return path


def test_a_good_file(tmp_path: Path) -> None:
    config = load(write(tmp_path))
    assert (config.name, config.password, config.epoch) == ("docker-01", "s3cret", 3)
    assert config.workdir == tmp_path / "work"
    assert config.root_name == GOOD["instance"]
    assert config.ca_file is None
    assert "s3cret" not in repr(config)


def test_builds_have_users_of_their_own_unless_the_owner_says_otherwise(tmp_path: Path) -> None:
    config = load(write(tmp_path))
    assert (config.run_as, config.build_groups, config.no_new_privileges) == (
        "build_user",
        (),
        False,
    )
    assert config.build_uids == (60800, 61055)
    chosen = {"run_as": "agent", "build_groups": ["kvm"], "build_uids": "7000-7003"}
    config = load(write(tmp_path, **chosen, no_new_privileges=True))
    assert (config.run_as, config.build_groups, config.no_new_privileges) == (
        "agent",
        ("kvm",),
        True,
    )
    assert config.build_uids == (7000, 7003)


def test_a_permanent_worker_has_no_instance(tmp_path: Path) -> None:
    config = load(write(tmp_path, instance=None, epoch=None))
    assert (config.instance, config.epoch, config.root_name) == (None, None, "docker-01")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hub": None}, "option 'hub' is missing"),
        ({"hub": "http://127.0.0.1/"}, "ws:// or wss://"),
        ({"hub": "ws:///path"}, "ws:// or wss://"),
        ({"hub": "ws://127.0.0.1:99999/"}, "Port out of range"),
        ({"hub": "wss://user:pw@hub/"}, "no credentials"),
        ({"hub": "wss://hub/?token=x"}, "no credentials, query"),
        ({"hub": "ws://hub.example/"}, "plain ws:// to hub.example"),
        ({"hub": "ws://192.0.2.1/"}, "plain ws:// to 192.0.2.1"),
        ({"orphan_timeout_s": -1}, "option 'orphan_timeout_s'"),
        ({"orphan_timeout_s": "60"}, "must be of type int"),
        ({"at_end": "explode"}, "one of exit, poweroff"),
        ({"run_as": "root"}, "option 'run_as' must be one of build_user, agent"),
        ({"run_as": True}, "option 'run_as' must be of type str"),
        ({"build_groups": "docker"}, "option 'build_groups' must be of type list"),
        ({"build_groups": ["kvm", 7]}, "a list of groups' names"),
        ({"build_groups": [""]}, "a list of groups' names"),
        ({"build_uids": "60800"}, "a range of uids FIRST-LAST"),
        ({"build_uids": "0-5"}, "a range of uids FIRST-LAST"),
        ({"build_uids": "9-5"}, "a range of uids FIRST-LAST"),
        ({"build_uids": "5-4294967295"}, "a range of uids FIRST-LAST"),
        ({"no_new_privileges": "yes"}, "option 'no_new_privileges' must be of type bool"),
        ({"name": "Docker"}, "option 'name'"),
        ({"name": "-a"}, "option 'name'"),
        ({"name": "a\n"}, "option 'name'"),
        ({"name": "a" * 64}, "option 'name'"),
        ({"instance": "x"}, "ULID"),
        ({"epoch": "3"}, "option 'epoch' must be of type int"),
        ({"epoch": True}, "option 'epoch' must be of type int"),
        ({"epoch": -1}, "negative"),
        ({"token_file": "nowhere"}, "token file .* cannot be read"),
        ({"ca_file": "nowhere"}, "option 'ca_file'"),
        ({"surprise": 1}, "option 'surprise' is unknown"),
    ],
)
def test_mistakes_are_told_in_one_line(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        load(write(tmp_path, **changes))
    assert "\n" not in str(caught.value)


def test_what_a_unix_socket_carries_is_not_shown_to_the_network(tmp_path: Path) -> None:
    config = load(write(tmp_path, hub="ws://hub/connect", hub_socket="hub.sock"))
    assert config.hub_socket == tmp_path / "hub.sock"


def test_plain_ws_to_another_machine_can_be_allowed(tmp_path: Path) -> None:
    assert load(write(tmp_path, hub="ws://hub.example/", insecure=True)).insecure


@pytest.mark.parametrize("name", ["agent.json", "token"])
def test_files_that_others_can_read_are_refused(tmp_path: Path, name: str) -> None:
    path = write(tmp_path)
    (tmp_path / name).chmod(0o640)
    with pytest.raises(ConfigurationError, match=f"{name} can be read by others; run: chmod 600"):
        load(path)


@pytest.mark.parametrize(
    ("token", "message"),
    [("", "empty"), ("\n", "empty"), ("a\nb", "one line"), ("x" * 70_000, "larger than")],
)
def test_bad_tokens_are_refused(tmp_path: Path, token: str, message: str) -> None:
    path = write(tmp_path)
    (tmp_path / "token").write_text(token)
    with pytest.raises(ConfigurationError, match=message) as caught:
        load(path)
    assert "a\nb" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', "\xff"])
def test_a_file_that_is_no_object_is_refused(tmp_path: Path, text: str) -> None:
    path = write(tmp_path)
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigurationError, match=r"agent\.json"):
        load(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.8.0.1", True),
        ("::1", True),
        ("127.0.0.1.example", False),
        ("localhost.example", False),
        ("0.0.0.0", False),
        ("10.0.0.1", False),
    ],
)
def test_what_is_this_machine(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
