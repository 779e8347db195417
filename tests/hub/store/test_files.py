"""The database's files: their owner's alone, and known again."""

from __future__ import annotations

import fcntl
import os
import stat

import file_locks
import pytest

from hostler_hub.store import files
from hostler_hub.store.files import OpenFiles


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_new_file_and_its_directory_are_made(tmp_path):
    path = tmp_path / "new" / "hub.sqlite3"
    files.make_private(path)
    assert mode_of(path) == 0o600
    assert path.read_bytes() == b""


def test_loose_modes_are_tightened_and_the_files_left_as_they_are(tmp_path):
    path = tmp_path / "hub.sqlite3"
    made = [path, tmp_path / "hub.sqlite3-wal", tmp_path / "hub.sqlite3-shm"]
    for each in made:
        each.write_bytes(b"content")
        each.chmod(0o664)
    other = tmp_path / "hub.sqlite3.txt"
    other.write_bytes(b"")
    other.chmod(0o644)
    files.make_private(path)
    assert [mode_of(each) for each in made] == [0o600] * 3
    assert {each.read_bytes() for each in made} == {b"content"}
    assert mode_of(other) == 0o644


def test_an_owner_who_may_not_write_is_given_nothing(tmp_path):
    path = tmp_path / "hub.sqlite3"
    path.touch()
    path.chmod(0o444)
    files.make_private(path)
    assert mode_of(path) == 0o400


@pytest.mark.parametrize("exists", [False, True])
def test_a_link_is_followed_as_sqlite_does(tmp_path, exists):
    link, target = tmp_path / "hub.sqlite3", tmp_path / "elsewhere.sqlite3"
    link.symlink_to(target)
    if exists:
        target.touch()
        target.chmod(0o644)
    files.make_private(link)
    assert link.is_symlink()
    assert mode_of(target) == 0o600


def test_a_directory_in_its_place_keeps_its_mode(tmp_path):
    path = tmp_path / "hub.sqlite3"
    path.mkdir(mode=0o755)
    files.make_private(path)
    assert mode_of(path) == 0o755


def test_no_lock_of_this_process_is_dropped(tmp_path):
    """As closing any descriptor of the file would do."""
    path = tmp_path / "hub.sqlite3"
    path.touch(mode=0o644)
    with path.open("rb") as file:
        fcntl.lockf(file, fcntl.LOCK_SH)
        files.make_private(path)
        assert OpenFiles(str(path)).difference() is None
        assert file_locks.held(os.getpid(), path) == {"READ"}
    assert file_locks.held(os.getpid(), path) == set()


def test_files_that_stay_are_no_news(tmp_path):
    path = tmp_path / "hub.sqlite3"
    for suffix in ("", "-wal", "-shm"):
        (tmp_path / f"hub.sqlite3{suffix}").touch()
    known = OpenFiles(str(path))
    path.write_bytes(b"more")
    path.chmod(0o400)
    assert known.difference() is None


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
def test_deleted_and_replaced_files_are_named(tmp_path, suffix):
    for each in ("", "-wal", "-shm"):
        (tmp_path / f"hub.sqlite3{each}").touch()
    path = tmp_path / f"hub.sqlite3{suffix}"
    known = OpenFiles(str(tmp_path / "hub.sqlite3"))
    path.rename(tmp_path / "kept")  # so that its inode is not given to the next file
    assert known.difference() == f"{path} was deleted"
    path.touch()
    assert known.difference() == f"{path} was replaced by another file"
    (tmp_path / "kept").rename(path)
    assert known.difference() is None


def test_a_directory_that_is_moved_away_took_the_database_with_it(tmp_path):
    path = tmp_path / "state" / "hub.sqlite3"
    files.make_private(path)
    known = OpenFiles(str(path))
    path.parent.rename(tmp_path / "moved")
    assert known.difference() == f"{path} was deleted"
    path.parent.touch()
    assert known.difference() == f"{path} was deleted"


def test_what_cannot_be_looked_at_is_not_taken_for_granted(tmp_path):
    path = tmp_path / "a" / "hub.sqlite3"
    files.make_private(path)
    known = OpenFiles(str(path))
    (tmp_path / "a").rename(tmp_path / "b")
    (tmp_path / "a").symlink_to(tmp_path / "a")
    assert known.difference() == f"{path} can no longer be found: Too many levels of symbolic links"
