"""Removes a directory tree by way of open directory descriptors, so never through a link.

Even if the tree changes meanwhile (a directory is replaced by a link to elsewhere), only entries
that are really below the path are removed: every step is relative to an open directory, and no
directory is opened through a link.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

from hostler_agent.commands.progress import Progress

assert sys.platform != "win32"

# Deeper directories are first moved to the top: a descriptor is open for each level, and Python's
# stack is not endless.
MAX_DEPTH = 100

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


def remove(path: str, progress: Progress) -> list[OSError]:
    """Remove a file, a link or a tree. Returns the failures. A path that does not exist is not a
    failure.

    Raises WorkStopped.
    """
    parent, name = os.path.split(path.rstrip("/") or "/")
    try:
        directory = os.open(parent or ".", os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return []
    except OSError as error:
        return [error]
    try:
        return _Removal(path, progress).remove(directory, name)
    finally:
        os.close(directory)


def remove_entry(directory: int, name: str, path: str, progress: Progress) -> list[OSError]:
    """Remove an entry of an open directory as remove() does; `path` is for messages."""
    return _Removal(path, progress).remove(directory, name)


class _Removal:
    def __init__(self, path: str, progress: Progress) -> None:
        self._path = path
        self._progress = progress
        self._failures: list[OSError] = []
        self._moved = 0

    def remove(self, parent: int, name: str) -> list[OSError]:
        try:
            mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode):
                self._directory(parent, name, self._path)
            else:
                os.unlink(name, dir_fd=parent)
        except FileNotFoundError:
            pass
        except OSError as error:
            self._failed(error, self._path)
        return self._failures

    def _directory(self, parent: int, name: str, path: str) -> None:
        directory = _open(parent, name)
        try:
            self._contents(directory, directory, path, 0)
        finally:
            os.close(directory)
        if not self._failures:
            os.rmdir(name, dir_fd=parent)

    def _contents(self, top: int, directory: int, path: str, depth: int) -> None:
        # Again until it is empty: deep directories arrive at the top while we work.
        while True:
            names = os.listdir(directory)
            failed = len(self._failures)
            for name in names:
                self._progress.step()
                try:
                    self._entry(top, directory, name, f"{path}/{name}", depth)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    self._failed(error, f"{path}/{name}")
            if not names or len(self._failures) > failed or depth:
                return

    def _entry(self, top: int, directory: int, name: str, path: str, depth: int) -> None:
        mode = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
        if not stat.S_ISDIR(mode):
            _writable(directory, lambda: os.unlink(name, dir_fd=directory))
        elif depth >= MAX_DEPTH:
            self._moved += 1
            moved = f".hostler-removed-{os.getpid()}-{self._moved}"
            os.rename(name, moved, src_dir_fd=directory, dst_dir_fd=top)
        else:
            below = _open(directory, name)
            try:
                self._contents(top, below, path, depth + 1)
            finally:
                os.close(below)
            _writable(directory, lambda: os.rmdir(name, dir_fd=directory))

    def _failed(self, error: OSError, path: str) -> None:
        self._failures.append(OSError(error.errno, error.strerror, path))


def _open(parent: int, name: str) -> int:
    """Open a directory to list it. If the permission to read it is missing, add that first."""
    try:
        return os.open(name, _FLAGS, dir_fd=parent)
    except PermissionError:
        # O_PATH needs no permission on it, and what it has opened cannot become a link.
        handle = os.open(name, _FLAGS | os.O_PATH, dir_fd=parent)
        try:
            _allow(handle)
            return os.open(name, _FLAGS, dir_fd=parent)
        finally:
            os.close(handle)


def _writable(directory: int, remove_entry: object) -> None:
    """Call the removal again after adding the permission to write to the directory."""
    assert callable(remove_entry)
    try:
        remove_entry()
    except PermissionError:
        _allow(directory)
        remove_entry()


def _allow(directory: int) -> None:
    path = Path(f"/proc/self/fd/{directory}")
    path.chmod(path.stat().st_mode | stat.S_IRWXU)
