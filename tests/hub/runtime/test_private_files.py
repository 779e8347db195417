"""Files of the hub that only its own user may read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hostler_hub.runtime import private_files


@pytest.mark.parametrize("content", ["", "{", "[]", "\ud800"])
def test_half_a_file_is_an_empty_one(tmp_path: Path, content: str) -> None:
    path = tmp_path / "hub.json"
    path.write_text(content, errors="surrogatepass")
    assert private_files.read_json(path) == {}


def test_written_files_are_private_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "hub.json"
    private_files.write_json(path, {"a": 1})
    private_files.write_json(path, {"a": 2})
    assert private_files.read_json(path) == {"a": 2}
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_the_mode_is_the_one_asked_for_whatever_the_file_had(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text("old")
    path.chmod(0o666)
    private_files.write(path, b"new", 0o644)
    assert path.stat().st_mode & 0o777 == 0o644
    private_files.write(path, "newer")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text() == "newer"


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("theirs")
    (tmp_path / "ours").symlink_to("theirs")
    private_files.write(tmp_path / "ours", "ours")
    assert (tmp_path / "theirs").read_text() == "theirs"


def test_a_write_that_fails_leaves_the_old_content_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "token"
    private_files.write(path, "old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        private_files.write(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_opened_is_created_private_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "hub.lock"
    for line in ("one\n", "two\n"):
        with open(path, "a", opener=private_files.open_or_create) as file:
            file.write(line)
    assert path.read_text() == "one\ntwo\n"
    assert path.stat().st_mode & 0o777 == 0o600
