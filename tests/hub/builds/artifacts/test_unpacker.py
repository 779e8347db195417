"""Tar streams from workers that are not to be trusted (U2, U3)."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import os
import tarfile
from typing import TYPE_CHECKING, Any

import pytest
from hub.builds.artifacts.tars import Entry, archive
from hypothesis import given
from hypothesis import strategies as st

from hostler_hub.builds.artifacts import unpacker
from hostler_hub.builds.artifacts.tar import HEADER_SIZE_BYTES, Member, TarParser
from hostler_hub.builds.artifacts.unpacker import Unpacker
from hostler_hub.builds.errors import BadArchive
from hostler_hub.runtime.safe_dir import SafeDirectory
from hostler_hub.specs import artifact_path

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def place(tmp_path: Path) -> Iterator[SafeDirectory]:
    with SafeDirectory.open(tmp_path / "place") as made:
        yield made


def unpack(
    place: SafeDirectory, data: bytes, compress: str | None = None, step: int = 4096
) -> list[unpacker.StoredFile]:
    unpacker = Unpacker(place, compress)
    try:
        for start in range(0, len(data), step):
            unpacker.feed(data[start : start + step])
        return unpacker.finish()
    finally:
        unpacker.close()


def tree(root: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else None
        for path in root.rglob("*")
    }


# --- what is taken --------------------------------------------------------------------------------


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("step", [1, 511, 513, 1 << 20])
def test_files_and_directories(
    place: SafeDirectory, tmp_path: Path, format: int, step: int
) -> None:
    long = "d" * 90 + "/" + "f" * 90
    entries: list[Entry] = [
        ("", None),
        ("a", b"x" * 512),
        ("deep/er", None),
        ("deep/er/empty", b""),
        ("\N{SNOWMAN}", b"y" * 1500),
        (long, b"z"),
    ]
    files = unpack(place, archive(*entries, format=format), step=step)
    there = tree(tmp_path / "place")
    assert {file.path: there[file.file] for file in files} == {
        name: data for name, data in entries if data is not None
    }
    assert set(there) == {"0", "1", "2", "3"}  # nothing is called as a worker says
    assert [(file.path, file.size_bytes) for file in files] == [
        (name, len(data)) for name, data in entries if data is not None
    ]
    assert files[0].sha256 == hashlib.sha256(b"x" * 512).hexdigest()
    assert files[0].modified_at == (1234.5 if format == tarfile.PAX_FORMAT else 1234)


@pytest.mark.parametrize(("compress", "squeeze"), [("gz", gzip.compress), ("bz2", bz2.compress)])
@pytest.mark.parametrize("step", [1000, 1 << 22])
def test_compressions(place: SafeDirectory, compress: str, squeeze: Any, step: int) -> None:
    data = os.urandom(600_000) + bytes(3_000_000)
    packed = squeeze(archive(("f", data), ("g", b"")))
    files = unpack(place, packed, compress, step)
    assert [file.sha256 for file in files] == [
        hashlib.sha256(data).hexdigest(),
        hashlib.sha256(b"").hexdigest(),
    ]


def test_modes_and_owners_of_the_worker_are_not_taken_over(
    place: SafeDirectory, tmp_path: Path
) -> None:
    unpack(place, archive(("f", b"x"), mode=0o6777, uid=12345))
    stat = (tmp_path / "place" / "0").stat()
    assert (stat.st_mode & 0o7777, stat.st_uid) == (0o600, os.getuid())


# --- what is not ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "../out",
        "a/../../out",
        "/out",
        "//out",
        "a/./b",
        "a//b",
        "x" * 256,
        "/".join("d" * 65),
        "/".join(["x" * 200] * 6),
    ],
)
@pytest.mark.parametrize("data", [b"x", None], ids=["file", "directory"])
def test_tar_slip_and_names_that_no_system_likes(
    place: SafeDirectory, tmp_path: Path, name: str, data: bytes | None
) -> None:
    with pytest.raises(BadArchive):
        unpack(place, archive(("ok", b"x"), (name, data)))
    assert set(tree(tmp_path)) <= {"place", "place/0"}


@pytest.mark.parametrize(
    "name",
    [
        "C:/out",
        "C:evil",
        "x:stream",
        "CON",
        "..\\out",
        "\\\\server\\out",
        "dots...",
        "blank ",
        "a\x1b[2J",
        "a\nb",
    ],
    ids=ascii,
)
def test_whatever_POSIX_allows_is_a_name_and_reaches_no_disk(
    place: SafeDirectory, tmp_path: Path, name: str
) -> None:
    (file,) = unpack(place, archive((name, b"x")))
    assert file.path == name
    assert tree(tmp_path / "place") == {"0": b"x"}


def test_a_name_that_is_not_utf8_has_codes_for_its_bytes(place: SafeDirectory) -> None:
    files = unpack(place, archive(("a\udcff", b"x"), ("ü\udc80", b"y")))
    assert [file.path for file in files] == ["a\\xff", "ü\\x80"]


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (tarfile.SYMTYPE, "a symbolic link"),
        (tarfile.LNKTYPE, "a hard link"),
        (tarfile.CHRTYPE, "a character device"),
        (tarfile.BLKTYPE, "a block device"),
        (tarfile.FIFOTYPE, "a pipe"),
        (b"Z", "an unknown kind"),
    ],
)
def test_links_and_devices_are_refused_by_name(
    place: SafeDirectory, tmp_path: Path, kind: bytes, what: str
) -> None:
    """CVE-2025-4517 and its kin all begin with a link; here there are none."""
    data = archive(("here", b""), type=kind, linkname="/etc/passwd")
    with pytest.raises(BadArchive, match=f"'here' is .*{what}"):
        unpack(place, data)
    assert tree(tmp_path / "place") == {}


def test_a_link_that_is_there_already_is_not_followed(place: SafeDirectory, tmp_path: Path) -> None:
    """The directory is empty and the hub's own; if it were not, still nothing leaves it."""
    (tmp_path / "out").mkdir()
    (tmp_path / "place" / "0").symlink_to(tmp_path / "out" / "f")
    (tmp_path / "place" / "d").symlink_to(tmp_path / "out")
    for name in ("d/x", "f"):
        with pytest.raises((BadArchive, OSError)):
            unpack(place, archive((name, b"x")))
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("second", ["a/b", "a", "a/b/c"])
def test_a_member_twice_or_a_file_for_a_directory(place: SafeDirectory, second: str) -> None:
    with pytest.raises(BadArchive, match="twice"):
        unpack(place, archive(("a/b", b"1"), (second, b"2")))


def test_a_directory_may_be_there_twice(place: SafeDirectory) -> None:
    files = unpack(place, archive(("a/b", b"1"), ("a", None), ("a", None), ("a/c", b"2")))
    assert [file.path for file in files] == ["a/b", "a/c"]


def test_V15_directories_without_members_count_as_members(
    place: SafeDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpacker, "MEMBERS", 50)
    with pytest.raises(BadArchive, match="more than 50 members"):
        unpack(place, archive(("/".join("d" * 50), b""), ("f", b"")))


def test_the_space_of_a_file_is_taken_before_it_is_written(
    place: SafeDirectory, tmp_path: Path
) -> None:
    taken: list[int] = []

    def take(size_bytes: int) -> None:
        taken.append(size_bytes)
        if sum(taken) > 10:
            raise BadArchive("no more")

    unpacker = Unpacker(place, None, take)
    with pytest.raises(BadArchive, match="no more"):
        unpacker.feed(archive(("a", b"x" * 10), ("b", b"y")))
    assert taken == [10, 1]
    assert tree(tmp_path / "place") == {"0": b"x" * 10}


def test_a_sparse_file_and_a_global_header(place: SafeDirectory) -> None:
    sparse = archive(("f", b"x"), pax_headers={"GNU.sparse.size": "1000000000000"})
    with pytest.raises(BadArchive, match="sparse"):
        unpack(place, sparse)
    made = io.BytesIO()
    options: Any = {"pax_headers": {"comment": "from git"}}
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT, **options) as tar:
        tar.addfile(tarfile.TarInfo("g"))
    assert [file.path for file in unpack(place, made.getvalue())] == ["g"]


@pytest.mark.parametrize("cut", [1, 511, 512, 600, 1024, 1535])
def test_a_cut_archive_is_no_archive(place: SafeDirectory, cut: int) -> None:
    whole = archive(("f", b"x" * 700))
    with pytest.raises(BadArchive, match="cut off"):
        unpack(place, whole[:cut])


@pytest.mark.parametrize("compress", ["gz", "bz2"])
def test_what_is_not_compressed_so(place: SafeDirectory, compress: str) -> None:
    with pytest.raises(BadArchive, match="decompressed"):
        unpack(place, archive(("f", b"x")), compress)
    with pytest.raises(BadArchive, match="cut off"):
        unpack(place, gzip.compress(archive(("f", os.urandom(9000))))[:-3000], "gz")


def test_damaged_headers() -> None:
    good = archive(("f", b"x"), format=tarfile.USTAR_FORMAT)
    for offset, value in [(0, b"y"), (124, b"9"), (124, b"\xff"), (148, b"9")]:
        data = good[:offset] + value + good[offset + 1 :]
        with pytest.raises(BadArchive):
            list(TarParser().feed(data))


def test_CVE_2025_8194_a_negative_size(place: SafeDirectory) -> None:
    header = bytearray(archive(("f", b"x"), format=tarfile.USTAR_FORMAT)[:512])
    header[124:136] = b"\xff" * 11 + b"\x00"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    with pytest.raises(BadArchive, match="negative"):
        unpack(place, bytes(header) + bytes(1024))


# --- limits, each one past ------------------------------------------------------------------------


def test_an_extended_header_is_bounded(place: SafeDirectory) -> None:
    """Python's reads one of any size into memory."""
    with pytest.raises(BadArchive, match="extended header"):
        unpack(place, archive(("f", b""), pax_headers={"comment": "x" * HEADER_SIZE_BYTES}))


def test_a_bomb_is_refused_while_it_is_small(
    place: SafeDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = unpacker.RATIO_FREE_BYTES
    honest = gzip.compress(archive(("zeros", bytes(size - 100_000))))
    assert unpack(place, honest, "gz")[0].size_bytes == size - 100_000
    with (
        SafeDirectory.open(tmp_path / "bomb") as other,
        pytest.raises(BadArchive, match="more than 100:1"),
    ):
        unpack(other, gzip.compress(archive(("bomb", bytes(4 * size)))), "gz", 1 << 20)
    assert (tmp_path / "bomb" / "0").stat().st_size <= size


@pytest.mark.parametrize(
    ("limit", "value", "text"),
    [
        ("SIZE_BYTES", 10_239, "larger than 10239 bytes"),
        ("FILE_SIZE_BYTES", 699, "f is larger than 699 bytes"),
        ("MEMBERS", 1, "more than 1 members"),
    ],
)
def test_size_and_number(
    place: SafeDirectory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    limit: str,
    value: int,
    text: str,
) -> None:
    data = archive(("f", b"x" * 700), ("g", None))
    assert len(data) == 10_240
    monkeypatch.setattr(unpacker, limit, value)
    with pytest.raises(BadArchive, match=text):
        unpack(place, data)
    monkeypatch.setattr(unpacker, limit, value + 1)
    with SafeDirectory.open(tmp_path / "other") as other:
        (file,) = unpack(other, archive(("h", b"x" * 700), ("i", None)))
    assert file.size_bytes == 700


def test_the_documented_limits() -> None:
    """U3, U4."""
    assert (unpacker.SIZE_BYTES, unpacker.FILE_SIZE_BYTES) == (4 * 1024**3, 1024**3)
    assert (unpacker.MEMBERS, unpacker.RATIO) == (100_000, 100)
    limits = (artifact_path.DEPTH, artifact_path.PATH_SIZE_BYTES, artifact_path.NAME_SIZE_BYTES)
    assert limits == (64, 1024, 255)
    artifact_path.parts_of("/".join("d" * 64))
    artifact_path.parts_of("x" * 255)


# --- anything at all ------------------------------------------------------------------------------


@given(st.binary(max_size=3000), st.integers(1, 700))
def test_no_bytes_break_the_parser(data: bytes, step: int) -> None:
    parser = TarParser()
    with_data = 0
    try:
        for start in range(0, len(data), step):
            for event in parser.feed(data[start : start + step]):
                with_data += len(event) if isinstance(event, bytes) else 0
        parser.close()
    except BadArchive:
        pass
    assert with_data <= len(data)


@given(st.integers(0, 2047), st.binary(min_size=1, max_size=16))
def test_no_damage_to_a_real_archive_breaks_the_parser(at: int, damage: bytes) -> None:
    data = archive(("long/" * 30 + "name", b"content" * 30), ("second", b"x"))
    data = data[:at] + damage + data[at + len(damage) :]
    parser = TarParser()
    try:
        events = list(parser.feed(data))
        parser.close()
    except BadArchive:
        return
    announced = sum(event.size_bytes for event in events if isinstance(event, Member))
    assert announced == sum(len(event) for event in events if isinstance(event, bytes))
