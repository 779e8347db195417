"""Removes a tree on Windows, and never through a link or a junction.

A directory is opened before it is listed, without sharing the right to delete: while we hold it,
nobody can put a link in its place, nor in that of a directory above it. Paths are extended ones
(`\\\\?\\`), so that neither their length nor names like `aux` or `x.` matter.

Files in use: a virus scanner or an indexer may hold one for a moment after the job's end, so
each removal is tried again for a while; whatever is held longer is reported (E18).
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import Callable

assert sys.platform == "win32"

from hostler_agent.commands.progress import Progress
from hostler_agent.win32 import api

_PATIENCE_S = 2.0
"""How long to repeat failed removals, in seconds, for one tree in total."""
_PAUSE_S = 0.05

_SHARE = api.SHARE_READ | api.SHARE_WRITE
_LINK_FLAGS = api.FILE_FLAG_BACKUP_SEMANTICS | api.FILE_FLAG_OPEN_REPARSE_POINT


def remove(path: str, progress: Progress) -> list[OSError]:
    """Remove a file, a link or a tree. Returns the failures. A path that does not exist is not a
    failure.

    Raises WorkStopped.
    """
    return _Removal(progress).remove(_extended(path))


class _Removal:
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._failures: list[OSError] = []
        self._patience_s = _PATIENCE_S

    def remove(self, path: str) -> list[OSError]:
        # Directories are met twice: to empty them, and when all below them is done, to remove them.
        held: list[tuple[str, api.Handle]] = []
        waiting: list[tuple[str, bool]] = [(path, False)]
        try:
            while waiting:
                self._progress.step()
                path, emptied = waiting.pop()
                if emptied:
                    held.pop()[1].close()
                    self._try(_remove_directory, path)
                    continue
                directory = self._open_directory(path)
                if directory is None:
                    continue
                held.append((path, directory))
                waiting.append((path, True))
                waiting += [(f"{path}\\{name}", False) for name in self._names(path)]
        finally:
            for _, directory in held:
                directory.close()
        return self._failures

    def _open_directory(self, path: str) -> api.Handle | None:
        """Open a real directory. Anything else is removed at once, and None returned."""
        try:
            # Asks for nothing but the attributes, so that it works whatever the permissions.
            handle = api.create_file(path, api.FILE_READ_ATTRIBUTES, _SHARE, _LINK_FLAGS)
        except FileNotFoundError:
            return None
        except OSError:
            # Somebody has it open in a way that excludes us; the removal will say so.
            self._try(_remove_file, path)
            return None
        attributes = api.file_information(handle).dwFileAttributes
        is_directory = attributes & api.FILE_ATTRIBUTE_DIRECTORY
        if is_directory and not attributes & api.FILE_ATTRIBUTE_REPARSE_POINT:
            return handle
        handle.close()
        self._try(_remove_directory if is_directory else _remove_file, path)
        return None

    def _names(self, path: str) -> list[str]:
        try:
            return os.listdir(path)  # noqa: PTH208 - plain strings
        except OSError as error:
            self._failures.append(error)
            return []

    def _try(self, action: Callable[[str], None], path: str) -> None:
        while True:
            try:
                action(path)
            except FileNotFoundError:  # noqa: PERF203 - to try again is the point
                return
            except OSError as error:
                self._patience_s -= _PAUSE_S
                if self._patience_s < 0 or self._failures:
                    self._failures.append(error)
                    return
                self._progress.step()
                time.sleep(_PAUSE_S)
            else:
                return


def _remove_file(path: str) -> None:
    _remove(os.unlink, path)


def _remove_directory(path: str) -> None:
    _remove(os.rmdir, path)


def _remove(action: Callable[[str], None], path: str) -> None:
    try:
        action(path)
    except PermissionError:
        # What is read-only cannot be removed as it is. A link has attributes of its own.
        with contextlib.closing(
            api.create_file(path, api.FILE_WRITE_ATTRIBUTES, _SHARE | api.SHARE_DELETE, _LINK_FLAGS)
        ) as handle:
            api.set_attributes(handle, api.FILE_ATTRIBUTE_NORMAL)
        action(path)


def _extended(path: str) -> str:
    full = os.path.abspath(path)  # noqa: PTH100 - strings throughout
    if full.startswith("\\\\?\\"):
        return full
    if full.startswith("\\\\"):
        return f"\\\\?\\UNC{full[1:]}"
    return f"\\\\?\\{full}"
