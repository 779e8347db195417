"""Files that only their owner may read, replaced in one step."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hostler_agent import private_files


def test_the_file_is_its_owner_s_alone_whatever_it_replaces(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("old")
    path.chmod(0o644)
    private_files.write_private(path, "new")
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["token"]


def test_what_a_killed_process_left_is_in_nobody_s_way(tmp_path: Path) -> None:
    (tmp_path / f".token.{os.getpid()}").write_text("half")
    private_files.write_private(tmp_path / "token", "whole")
    assert (tmp_path / "token").read_text() == "whole"


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("theirs")
    (tmp_path / "token").symlink_to("theirs")
    private_files.write_private(tmp_path / "token", "ours")
    assert (tmp_path / "theirs").read_text() == "theirs"
    assert not (tmp_path / "token").is_symlink()


def test_a_write_that_fails_leaves_the_old_content_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "token"
    private_files.write_private(path, "old")
    with pytest.raises(UnicodeEncodeError):
        private_files.write_private(path, "\ud800")
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["token"]


def test_nothing_that_exists_is_opened_anew(tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    with pytest.raises(FileExistsError):
        private_files.create(tmp_path / "there")
