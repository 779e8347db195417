"""Waking machines: packets as they go out, and hooks that may be run and those that may not."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from hostler_hub.drivers.errors import OptionsRefused, ProviderFailed
from hostler_hub.drivers.hosts import wake_on_lan
from hostler_hub.drivers.hosts.wake_on_lan import WakeOptions

MAC = "02:00:5E:10:00:ff"


@pytest.fixture
def hooks(tmp_path: Path) -> Path:
    (tmp_path / "hooks").mkdir()
    return tmp_path / "hooks"


def write(path: Path, script: str, mode: int = 0o755) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(mode)


async def test_a_magic_packet_goes_to_the_broadcast_address(hooks: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as machine:
        machine.bind(("127.0.0.1", 0))
        machine.settimeout(60)
        how = WakeOptions(mac=MAC, broadcast="127.0.0.1", port=machine.getsockname()[1])
        await wake_on_lan.call(how, hooks, "builder")
        assert machine.recv(200) == b"\xff" * 6 + bytes.fromhex("02005e1000ff") * 16


async def test_a_hook_gets_host_and_mac_and_none_of_the_hub_s_secrets(
    hooks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOSTLER_SECRET_X", "secret")
    write(hooks / "ipmi", f'echo "$@ [$HOSTLER_SECRET_X]" >{tmp_path}/said')
    await wake_on_lan.run_hook(hooks, "ipmi", ["builder; id", MAC])
    assert (tmp_path / "said").read_text() == f"builder; id {MAC} []\n"


async def test_a_hook_that_fails_is_quoted(hooks: Path) -> None:
    write(hooks / "ipmi", "echo no such chassis >&2; exit 3")
    with pytest.raises(ProviderFailed, match=r"hook ipmi failed with 3: no such chassis"):
        await wake_on_lan.run_hook(hooks, "ipmi", ["builder", ""])


async def test_a_hook_that_hangs_is_ended(hooks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wake_on_lan, "HOOK_DEADLINE_S", 0.2)
    write(hooks / "ipmi", "exec sleep 60")
    with pytest.raises(ProviderFailed, match="took longer"):
        await wake_on_lan.run_hook(hooks, "ipmi", ["builder", ""])


@pytest.mark.parametrize("mode", [0o644, 0o775, 0o757])
async def test_only_what_others_cannot_write_is_run(hooks: Path, mode: int) -> None:
    write(hooks / "ipmi", "true", mode)
    with pytest.raises(OptionsRefused, match="executable file"):
        await wake_on_lan.run_hook(hooks, "ipmi", ["builder", ""])


async def test_a_link_is_not_followed_and_what_is_absent_is_named(hooks: Path) -> None:
    (hooks / "link").symlink_to("/bin/true")
    with pytest.raises(OptionsRefused, match="executable file"):
        await wake_on_lan.run_hook(hooks, "link", [])
    with pytest.raises(OptionsRefused, match="absent"):
        await wake_on_lan.run_hook(hooks, "absent", [])
