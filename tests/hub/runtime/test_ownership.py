"""State directories that were there before the hub: loose ones are tightened, others' refused."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from hostler_hub.errors import SettingsError
from hostler_hub.runtime import ownership
from hostler_hub.runtime.errors import NotOurs, SecretRefused
from hostler_hub.runtime.secrets import Secrets
from hostler_hub.runtime.settings import Settings
from hostler_hub.specs.secret_ref import SecretRef

STRANGER = 54321
LOOSE = 0o777
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def loose(tmp_path: Path) -> Path:
    """A state directory that anybody may write, with all that a hub keeps."""
    state_dir = tmp_path / "hub"
    for name in ("agents", "secrets", "artifacts", "instances/local", "tls", "agent"):
        (state_dir / name).mkdir(parents=True)
    for name in ("hub.log", "hub.lock", "hub.sqlite3", "admin.token", "secrets/key", "tls/ca.key"):
        (state_dir / name).write_text("x")
    for path in [state_dir, *state_dir.rglob("*")]:
        path.chmod(LOOSE)
    return state_dir


def test_what_is_ours_and_loose_is_tightened(loose: Path) -> None:
    Settings(state_dir=loose).prepare_state_dir()
    assert mode(loose) == 0o700
    for path in loose.rglob("*"):
        assert mode(path) & (0o077 if path.is_file() else 0o066) == 0 or path.name == "agents"


@as_root
@pytest.mark.parametrize(
    "name",
    [".", "hub.log", "admin.token", "agents", "instances", "secrets", "secrets/key", "tls/ca.key"],
)
def test_what_is_another_user_s_is_refused(loose: Path, name: str) -> None:
    os.chown(loose / name, STRANGER, STRANGER)
    with pytest.raises(SettingsError) as refusal:
        Settings(state_dir=loose).prepare_state_dir()
    said = str(refusal.value)
    assert str(loose / name) in said
    assert f"belongs to uid {STRANGER}" in said
    assert "(uid 0)" in said
    assert "chown" in said


@as_root
@pytest.mark.parametrize("whose", ["link", "target"])
def test_another_user_s_link_is_refused(loose: Path, tmp_path: Path, whose: str) -> None:
    target, link = tmp_path / "elsewhere", loose / "hub.json"
    target.write_text("x")
    link.symlink_to(target)
    os.chown(link if whose == "link" else target, STRANGER, STRANGER, follow_symlinks=False)
    with pytest.raises(NotOurs, match=r"hub\.json belongs to uid 54321"):
        ownership.take_state_dir(loose)


def test_our_own_link_is_followed_and_its_target_tightened(loose: Path, tmp_path: Path) -> None:
    target = tmp_path / "big disk"
    target.mkdir()
    target.chmod(LOOSE)
    (loose / "elsewhere").symlink_to(target)
    (loose / "nowhere").symlink_to(tmp_path / "missing")
    ownership.take_state_dir(loose)
    assert mode(target) == 0o711


def test_U2_what_workers_write_below_is_no_link(loose: Path, tmp_path: Path) -> None:
    (loose / "files").symlink_to(tmp_path)
    with pytest.raises(SettingsError, match="is a link and must be a directory"):
        ownership.take_state_dir(loose)


@as_root
def test_the_command_says_what_to_do_and_changes_nothing(loose: Path) -> None:
    os.chown(loose, STRANGER, STRANGER)
    command = [sys.executable, "-m", "hostler_hub", "serve", "--state-dir", str(loose)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 2
    assert f"{loose} belongs to uid {STRANGER}" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert mode(loose) == LOOSE


# --- secrets that others manage -------------------------------------------------------------------


def resolve(directory: Path) -> str:
    return Secrets(directory).resolve(SecretRef(file="key"))


def test_a_secret_of_ours_that_others_could_read_is_tightened(loose: Path) -> None:
    assert resolve(loose / "secrets") == "x"
    assert mode(loose / "secrets" / "key") == 0o700


@as_root
def test_a_secret_of_another_user_is_refused(loose: Path) -> None:
    os.chown(loose / "secrets" / "key", STRANGER, STRANGER)
    with pytest.raises(SecretRefused, match="belongs to uid 54321"):
        resolve(loose / "secrets")


@as_root
@pytest.mark.parametrize(("bits", "taken"), [(0o644, True), (0o640, True), (0o646, False)])
def test_a_secret_of_root_may_be_read_and_not_written(
    loose: Path, monkeypatch: pytest.MonkeyPatch, bits: int, taken: bool
) -> None:
    """As configuration management and Kubernetes leave them for a hub that is not root."""
    (loose / "secrets" / "key").chmod(bits)
    monkeypatch.setattr(os, "geteuid", lambda: STRANGER)
    if taken:
        assert resolve(loose / "secrets") == "x"
    else:
        with pytest.raises(SecretRefused, match="can be written by everybody"):
            resolve(loose / "secrets")
