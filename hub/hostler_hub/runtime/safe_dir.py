"""Files below one directory, opened from its descriptor, name by name.

The kernel never resolves a path that could lead elsewhere: each part is opened relative to the one
before with O_NOFOLLOW, so that neither a link nor a race leads out of the directory (U2).
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OLD = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class SafeDirectory:
    """A directory that is held open. Its methods block, and raise OSError."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the hub's own directory at ``path``; create it if it is missing."""
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return cls(os.open(path, _DIRECTORY))

    def close(self) -> None:
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def directory(self, parts: Sequence[str], *, make: bool = False) -> Iterator[int]:
        """A descriptor of the directory ``parts``, for as long as the context lasts."""
        descriptor = os.dup(self._descriptor)
        try:
            for part in parts:
                if make:
                    _make(part, descriptor)
                inner = os.open(part, _DIRECTORY, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = inner
            yield descriptor
        finally:
            os.close(descriptor)

    def make(self, parts: Sequence[str]) -> None:
        """Create a directory and those above it."""
        with self.directory(parts, make=True):
            pass

    def create(self, parts: Sequence[str]) -> int:
        """Create a file and return its descriptor. Raises FileExistsError if the name is taken."""
        with self.directory(parts[:-1], make=True) as parent:
            return os.open(parts[-1], _NEW, 0o600, dir_fd=parent)

    def read(self, parts: Sequence[str]) -> int:
        """Open an existing file to read it, and return its descriptor."""
        with self.directory(parts[:-1]) as parent:
            return os.open(parts[-1], _OLD, dir_fd=parent)

    def names(self, parts: Sequence[str] = ()) -> list[str]:
        """The names in a directory; none if there is no such directory."""
        try:
            with self.directory(parts) as descriptor:
                return os.listdir(descriptor)  # noqa: PTH208 - it has no path
        except (FileNotFoundError, NotADirectoryError):
            return []

    def sync(self, parts: Sequence[str]) -> None:
        """Make the names in a directory durable."""
        with self.directory(parts) as descriptor:
            os.fsync(descriptor)

    def move_in(self, source: SafeDirectory, name: str, parts: Sequence[str]) -> None:
        """Rename ``name`` of another directory to ``parts`` here, replacing a file of that name.

        Durable on return. Raises OSError if ``parts`` exists and is not a file.
        """
        with self.directory(parts[:-1], make=True) as parent:
            os.rename(name, parts[-1], src_dir_fd=source._descriptor, dst_dir_fd=parent)
            os.fsync(parent)

    def remove(self, name: str) -> None:
        """Remove a file or a whole tree. What does not exist is ignored."""
        with contextlib.suppress(FileNotFoundError):
            try:
                os.unlink(name, dir_fd=self._descriptor)
            except (IsADirectoryError, PermissionError):
                shutil.rmtree(name, dir_fd=self._descriptor)


def _make(name: str, parent: int) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=parent)
        os.fsync(parent)  # a file in it is as durable as its directory
