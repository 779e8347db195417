"""Commands on directories: `mkdir`, `rmdir`, `cpdir`."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from pathlib import Path
from typing import Callable

from hostler_agent import machine
from hostler_agent.commands import removal
from hostler_agent.commands.filework import FileCommand
from hostler_agent.commands.progress import Progress
from hostler_agent.commands.slots.contract import AgentSlot, Slot

Pairs = list[list[object]]


class MakeDirectories(FileCommand):
    name = "mkdir"
    makes_directories = True

    async def execute(self) -> None:
        # A stock master has those of all its builders made by one command.
        for path in filter(self.slot.is_the_agents, self.arguments.paths("paths")):
            with contextlib.suppress(OSError):  # told below, by its name
                Path(path).mkdir(exist_ok=True)
        await super().execute()

    def claimed(self) -> list[str]:
        """Those that are not build directories themselves, which may be several builders'."""
        paths = self.arguments.paths_taken
        return [path for path in paths if not self.slot.is_the_agents(path)]

    def prepare(self) -> Callable[[Progress], Pairs]:
        paths = self.arguments.paths("paths")

        def work(progress: Progress) -> Pairs:
            for path in paths:
                progress.step()
                Path(path).mkdir(parents=True, exist_ok=True)
            return []

        return work


class RemoveDirectories(FileCommand):
    """Removes all that it can before it fails for what it cannot remove, as stock workers do."""

    name = "rmdir"

    def worker(self) -> Slot:
        """The agent itself for whole build directories, which lie in its own. No link leads the
        removal elsewhere.
        """
        paths = self.arguments.paths_taken
        if all(self.slot.is_build_directory(path) for path in paths):
            return AgentSlot()
        return self.slot

    def prepare(self) -> Callable[[Progress], Pairs]:
        paths = self.arguments.paths("paths")

        def work(progress: Progress) -> Pairs:
            failures = [failure for path in paths for failure in removal.remove(path, progress)]
            if failures:
                raise failures[0]
            return []

        return work


class CopyDirectory(FileCommand):
    """Copies as `cp -R -P -p` does: links stay links, modes and times are kept. The target must not
    exist.
    """

    name = "cpdir"
    makes_directories = True

    def prepare(self) -> Callable[[Progress], Pairs]:
        source, target = self.arguments.path("from_path"), self.arguments.path("to_path")

        def work(progress: Progress) -> Pairs:
            if os.path.lexists(target):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            try:
                _copy(source, target, progress)
            except shutil.Error as error:
                # One triple of source, target and reason for each file that failed.
                first = error.args[0][0]
                raise OSError(errno.EIO, str(first[2]), str(first[0])) from error
            return []

        return work


def _copy(source: str, target: str, progress: Progress) -> None:
    def copy_one(one: str, to: str) -> str:
        progress.step()
        mode = os.lstat(one).st_mode
        if stat.S_ISREG(mode) or stat.S_ISLNK(mode):
            shutil.copy2(one, to, follow_symlinks=False)
            machine.keep_owner(one, to)
        elif stat.S_ISFIFO(mode):
            machine.make_fifo(to, stat.S_IMODE(mode))
        else:
            raise OSError(errno.EINVAL, "neither a file, a link, a pipe nor a directory", one)
        return to

    if Path(source).is_dir() and not Path(source).is_symlink():
        shutil.copytree(source, target, symlinks=True, copy_function=copy_one)
    else:
        copy_one(source, target)
