"""The format of a hub's backup: a tar archive of one database, the state directory's files, and
last, once all else is complete, a manifest with the size and hash of each.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

FORMAT = 1
MANIFEST = "manifest.json"
STATE = "state/"
DATABASES = {"sqlite": "database.sqlite3", "postgresql": "database.pgdump"}
"""The member that holds the database, by the kind of database."""

_BLOCK_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Member:
    """One file of the archive: its size in bytes and the SHA-256 of its content."""

    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an archive holds. `made_at`: when the database was read (Unix time). `missing`: files
    that the database names and the hub's disk did not have.
    """

    hub: str
    version: str
    database: str
    made_at: float
    members: Mapping[str, Member]
    missing: tuple[str, ...] = ()

    def dump(self) -> bytes:
        """The manifest as a JSON document."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1).encode()

    @classmethod
    def parse(cls, text: bytes) -> Manifest:
        """The manifest in a JSON document. Raises ValueError for any other."""
        try:
            found: dict[str, Any] = json.loads(text)
            number = found.pop("format")
            if number != FORMAT:
                raise ValueError(f"it is of format {number}, this hub knows {FORMAT}")
            members = {name: Member(**each) for name, each in found.pop("members").items()}
            return cls(**{**found, "members": members, "missing": tuple(found["missing"])})
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError("its manifest cannot be read") from error


class HashingReader:
    """A file for reading that hashes what is read from it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.size_bytes = 0

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._digest.update(data)
        self.size_bytes += len(data)
        return data

    @property
    def member(self) -> Member:
        """What was read so far."""
        return Member(self.size_bytes, self._digest.hexdigest())


def add(tar: tarfile.TarFile, name: str, path: Path) -> Member:
    """Add a file. Raises OSError, also if it became shorter meanwhile."""
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        info = tarfile.TarInfo(name)
        info.size, info.mtime, info.mode = status.st_size, status.st_mtime, status.st_mode & 0o777
        reader = HashingReader(file)
        tar.addfile(info, reader)
    return reader.member


def add_bytes(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Add a file with this content."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o600
    tar.addfile(info, io.BytesIO(data))


def manifest_of(tar: tarfile.TarFile) -> Manifest:
    """The archive's manifest. Raises ValueError if it is no complete backup of a hub."""
    try:
        file = tar.extractfile(MANIFEST)
    except KeyError:
        file = None
    if file is None:
        raise ValueError("it has no manifest: it is no backup of a hub, or an incomplete one")
    return Manifest.parse(file.read())


def blocks(reader: HashingReader) -> Iterator[bytes]:
    """The rest of the file, in blocks."""
    while data := reader.read(_BLOCK_BYTES):
        yield data
