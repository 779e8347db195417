"""Files beneath a directory: no link leads out of it (U2)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostler_hub.runtime.safe_dir import SafeDirectory


@pytest.fixture
def inside(tmp_path: Path) -> Iterator[SafeDirectory]:
    with SafeDirectory.open(tmp_path / "state" / "inside") as made:
        yield made


@pytest.fixture
def outside(tmp_path: Path, inside: SafeDirectory) -> Path:
    """A directory outside, with links to it and to its file from inside."""
    place = tmp_path / "outside"
    place.mkdir()
    (place / "file").write_text("secret")
    (tmp_path / "state/inside/directory").symlink_to(place)
    (tmp_path / "state/inside/file").symlink_to(place / "file")
    (tmp_path / "state/inside/nowhere").symlink_to(place / "new")
    return place


def content(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb") as file:
        return file.read()


def write(inside: SafeDirectory, parts: list[str], data: bytes) -> None:
    with os.fdopen(inside.create(parts), "wb") as file:
        file.write(data)


def test_what_is_written_is_read_and_is_private(inside: SafeDirectory, tmp_path: Path) -> None:
    write(inside, ["a", "b", "c"], b"data")
    assert content(inside.read(["a", "b", "c"])) == b"data"
    assert (tmp_path / "state/inside/a/b/c").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "state/inside/a").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "state/inside").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("parts", [["file"], ["directory", "file"], ["nowhere"]])
def test_U2_a_link_is_neither_read_nor_written(
    inside: SafeDirectory, outside: Path, parts: list[str]
) -> None:
    with pytest.raises(OSError, match=r"Too many levels|Not a directory"):
        inside.read(parts)
    with pytest.raises(OSError, match=r"File exists|Not a directory|Too many levels"):
        inside.create(parts)
    assert sorted(each.name for each in outside.iterdir()) == ["file"]
    assert (outside / "file").read_text() == "secret"


def test_U2_no_directory_is_made_through_a_link(inside: SafeDirectory, outside: Path) -> None:
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        inside.make(["directory", "new"])
    assert not (outside / "new").exists()


def test_U2_the_directory_itself_may_not_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        SafeDirectory.open(tmp_path / "link")


def test_a_name_is_taken_once(inside: SafeDirectory) -> None:
    write(inside, ["a"], b"1")
    with pytest.raises(FileExistsError):
        inside.create(["a"])
    with pytest.raises(NotADirectoryError):
        inside.create(["a", "b"])
    assert content(inside.read(["a"])) == b"1"


def test_a_fifo_is_opened_without_waiting_for_who_writes(
    inside: SafeDirectory, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "state/inside/pipe")
    assert content(inside.read(["pipe"])) == b""


def test_a_file_of_another_directory_is_taken_in_over_an_older_one(
    inside: SafeDirectory, tmp_path: Path
) -> None:
    write(inside, ["a", "b"], b"old")
    with SafeDirectory.open(tmp_path / "incoming") as incoming:
        write(incoming, ["new"], b"new")
        inside.move_in(incoming, "new", ["a", "b"])
        assert content(inside.read(["a", "b"])) == b"new"
        assert list((tmp_path / "incoming").iterdir()) == []
        write(incoming, ["new"], b"new")
        with pytest.raises(IsADirectoryError):
            inside.move_in(incoming, "new", ["a"])


def test_U2_what_is_removed_is_the_link_and_not_what_it_leads_to(
    inside: SafeDirectory, outside: Path, tmp_path: Path
) -> None:
    inside.make(["tree", "deep"])
    (tmp_path / "state/inside/tree/deep/link").symlink_to(outside)
    for name in ("tree", "directory", "file", "never there"):
        inside.remove(name)
    assert [each.name for each in (tmp_path / "state/inside").iterdir()] == ["nowhere"]
    assert (outside / "file").read_text() == "secret"


def test_no_descriptor_is_left_open(inside: SafeDirectory, outside: Path) -> None:
    assert outside.is_dir()
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - of descriptors, not of files
    for parts in (["file"], ["directory", "x"], ["missing", "x"]):
        with pytest.raises(OSError, match=r"\[Errno"):
            inside.read(parts)
    inside.make(["a", "b", "c"])
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
