"""The commands that query the file system: `stat`, `glob`, `listdir`; and the small `rmfile`."""

from __future__ import annotations

import errno
import glob
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Callable

from hostler_agent.commands.filework import FileCommand
from hostler_agent.commands.progress import Progress

# What fits into one update beside everything else: the hub takes 1 MiB and 65,536 items.
MAX_NAMES = 60_000
MAX_NAMES_BYTES = 900 * 1024

Pairs = list[list[object]]


class Stat(FileCommand):
    name = "stat"

    def prepare(self) -> Callable[[Progress], Pairs]:
        path = self.arguments.path("path")
        # The first ten, as whole numbers: what every platform has.
        return lambda _progress: [["stat", list(os.stat(path))]]  # noqa: PTH116 - Path's is the same


class Glob(FileCommand):
    name = "glob"

    def prepare(self) -> Callable[[Progress], Pairs]:
        pattern = self.arguments.path("path")

        def work(progress: Progress) -> Pairs:
            found = []
            for path in glob.iglob(pattern, recursive=True):  # noqa: PTH207 - links as in a shell
                progress.step()
                found.append(path)
            return [["files", _sendable(found, pattern)]]

        return work


class ListDir(FileCommand):
    name = "listdir"

    def prepare(self) -> Callable[[Progress], Pairs]:
        path = self.arguments.path("path")
        return lambda _progress: [["files", _sendable(os.listdir(path), path)]]  # noqa: PTH208


class RemoveFile(FileCommand):
    name = "rmfile"

    def prepare(self) -> Callable[[Progress], Pairs]:
        path = self.arguments.path("path")

        def work(_progress: Progress) -> Pairs:
            Path(path).unlink()
            return []

        return work


def _sendable(names: Iterable[str], where: str) -> list[str]:
    """The names as text that any peer can decode. Raises OSError if they exceed one update."""
    sendable = [os.fsencode(name).decode("utf-8", "replace") for name in names]
    size_bytes = sum(len(name.encode()) + 5 for name in sendable)
    if len(sendable) > MAX_NAMES or size_bytes > MAX_NAMES_BYTES:
        raise OSError(errno.E2BIG, f"{len(sendable)} names are too many to send", where)
    return sendable
