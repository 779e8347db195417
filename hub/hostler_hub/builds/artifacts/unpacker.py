"""Unpacks a tar stream from a worker into a directory of files, within limits (U2, U3).

The stream is unpacked while it comes: no archive is stored, and a stream that exceeds a limit is
refused at that byte. The directory is empty and open before the first member, and gets one file for
each regular file of the archive, called by its number: no name from a worker reaches the disk.
"""

from __future__ import annotations

import bz2
import hashlib
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from hostler_hub.builds.artifacts.tar import Member, TarParser
from hostler_hub.builds.errors import BadArchive
from hostler_hub.runtime.safe_dir import SafeDirectory
from hostler_hub.specs import artifact_path

SIZE_BYTES = 4 * 1024**3
FILE_SIZE_BYTES = 1024**3
MEMBERS = 100_000
RATIO = 100
# Up to this size RATIO is not checked: a bomb does no harm, and logs of mostly zeros are honest.
RATIO_FREE_BYTES = 16 * 1024**2
_PIECE_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file that is complete and durable: its path among the artifacts, size, hash, when it was
    modified (seconds since the epoch), and what it is called in the directory where it lies.
    """

    path: str
    size_bytes: int
    sha256: str
    modified_at: float | None
    file: str


class _Inflate(Protocol):
    def __call__(self, data: bytes, /) -> Iterator[bytes]: ...


class Unpacker:
    """Call feed() with the stream, then finish(). Blocking; both raise BadArchive for
    what is refused.

    ``target`` is the empty directory in which the files are made. ``reserve`` is called with the
    size of each before it is written; what it raises goes to the caller. close() may be called at
    any time.
    """

    def __init__(
        self,
        target: SafeDirectory,
        compress: str | None,
        reserve: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._target = target
        self._reserve = reserve
        self._inflate = {None: _plain, "gz": _gunzip(), "bz2": _bunzip()}[compress]
        self._parser = TarParser()
        self._received = 0
        self._expanded = 0
        self._members = 0
        self._names: dict[str, bool] = {}  # of files and directories: whether it is a directory
        self._file: _OpenFile | None = None
        self.files: list[StoredFile] = []

    def feed(self, data: bytes) -> None:
        self._received += len(data)
        try:
            for piece in self._inflate(data):
                self._grow(len(piece))
                for event in self._parser.feed(piece):
                    self._take(event)
        except (zlib.error, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the disk's; bz2 raises one without a number
            raise BadArchive(f"it cannot be decompressed: {error}") from error

    def finish(self) -> list[StoredFile]:
        """The unpacked files. Raises BadArchive if the archive is not complete."""
        self._parser.close()
        self._end_file()
        return self.files

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _grow(self, size_bytes: int) -> None:
        self._expanded += size_bytes
        if self._expanded > SIZE_BYTES:
            raise BadArchive(f"it is larger than {SIZE_BYTES} bytes")
        if self._expanded > max(RATIO_FREE_BYTES, RATIO * self._received):
            raise BadArchive(f"it is compressed more than {RATIO}:1")

    def _take(self, event: Member | bytes) -> None:
        if isinstance(event, Member):
            self._end_file()
            self._begin(event)
        else:
            assert self._file is not None
            self._file.write(event)

    def _begin(self, member: Member) -> None:
        name = artifact_path.decoded(member.name)
        name = name.removeprefix("./").rstrip("/") if member.is_directory else name
        if member.is_directory and name in ("", "."):
            return  # the directory itself
        try:
            parts = artifact_path.parts_of(name.removeprefix("./"))
        except ValueError as error:
            raise BadArchive(str(error)) from None
        if member.size_bytes > FILE_SIZE_BYTES:
            shown = artifact_path.shown(name)
            raise BadArchive(f"{shown} is larger than {FILE_SIZE_BYTES} bytes")
        self._enter(parts, is_directory=member.is_directory)
        if not member.is_directory:
            self._reserve(member.size_bytes)
            stored = str(len(self.files))
            descriptor = self._target.create((stored,))
            self._file = _OpenFile(descriptor, stored, "/".join(parts), member)

    def _enter(self, parts: tuple[str, ...], *, is_directory: bool) -> None:
        """Note a name, and the directories above it."""
        path = "/".join(parts)
        above = ["/".join(parts[:depth]) for depth in range(1, len(parts))]
        is_clash = path in self._names and not (is_directory and self._names[path])
        if is_clash or not all(self._names.get(name, True) for name in above):
            raise BadArchive(f"{artifact_path.shown(path)} is there twice")
        self._names.update(dict.fromkeys(above, True))
        self._names[path] = is_directory
        self._members += 1
        # Also those that no member of the archive stands for: they are in memory (V15).
        if max(self._members, len(self._names)) > MEMBERS:
            raise BadArchive(f"it has more than {MEMBERS} members")

    def _end_file(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            self.files.append(file.finish())


class _OpenFile:
    def __init__(self, descriptor: int, stored: str, path: str, member: Member) -> None:
        self._descriptor = descriptor
        self._stored = stored
        self._path = path
        self._member = member
        self._digest = hashlib.sha256()

    def write(self, data: bytes) -> None:
        self._digest.update(data)
        write_all(self._descriptor, data)

    def finish(self) -> StoredFile:
        try:
            os.fsync(self._descriptor)
        finally:
            self.close()
        member = self._member
        return StoredFile(
            self._path,
            member.size_bytes,
            self._digest.hexdigest(),
            member.modified_at,
            self._stored,
        )

    def close(self) -> None:
        os.close(self._descriptor)


def write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


# --- compressions: a few bytes may become many, so what comes out comes in pieces -----------------


def _plain(data: bytes) -> Iterator[bytes]:
    yield data


def _gunzip() -> _Inflate:
    inflater = zlib.decompressobj(wbits=31)  # gzip's header and checksum

    def inflate(data: bytes) -> Iterator[bytes]:
        while not inflater.eof:
            piece = inflater.decompress(data, _PIECE_BYTES)
            data = inflater.unconsumed_tail
            if piece:
                yield piece
            # A full piece: more may be waiting inside, also when all input is taken.
            if not data and len(piece) < _PIECE_BYTES:
                return

    return inflate


def _bunzip() -> _Inflate:
    inflater = bz2.BZ2Decompressor()

    def inflate(data: bytes) -> Iterator[bytes]:
        while not inflater.eof:
            piece = inflater.decompress(data, _PIECE_BYTES)
            data = b""
            if piece:
                yield piece
            if inflater.needs_input or not piece:
                return

    return inflate
