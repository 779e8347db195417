from __future__ import annotations

import re
from pathlib import Path

import pytest

from hostler_agent.hub.session_secret import session_secret


def test_a_restarted_agent_shows_the_same_secret(tmp_path: Path) -> None:
    secret = session_secret(tmp_path, "w1")
    assert re.fullmatch("[A-Za-z0-9_-]{43}", secret)
    assert session_secret(tmp_path, "w1") == secret


def test_another_instance_has_another_secret(tmp_path: Path) -> None:
    assert session_secret(tmp_path, "w1") != session_secret(tmp_path, "w2")


def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    session_secret(tmp_path, "w1")
    path = tmp_path / ".hostler" / "session-w1"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == ["session-w1"]


@pytest.mark.parametrize("damage", [b"", b"short", b"\xff" * 43])
def test_a_damaged_file_is_replaced(tmp_path: Path, damage: bytes) -> None:
    session_secret(tmp_path, "w1")
    (tmp_path / ".hostler" / "session-w1").write_bytes(damage)
    secret = session_secret(tmp_path, "w1")
    assert session_secret(tmp_path, "w1") == secret
