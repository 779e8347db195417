"""Opens files beneath a directory. Links are followed as long as they stay in it.

The kernel never resolves more than one name at a time: each is opened relative to the directory
before with O_NOFOLLOW, and where a name is a link its target is resolved in the same way. So also a
build that exchanges directories and links meanwhile cannot lead out (as `openat2` with
RESOLVE_BENEATH, which is missing on older kernels and under common seccomp profiles).
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from typing import BinaryIO, Optional

from hostler_agent import machine
from hostler_agent.commands.tree.errors import leads_out, neither

assert sys.platform != "win32"

MAX_LINKS = 40
"""As many as the kernel follows in one path."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# What opening a link with O_NOFOLLOW fails with: the last is O_DIRECTORY's.
_IS_LINK = frozenset([errno.ELOOP, errno.EMLINK, errno.ENOTDIR])


class Tree:
    """The files beneath `root`, a directory's absolute path. Its methods block and raise OSError;
    close() it at the end.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._descriptor = os.open(root, _DIRECTORY)
        real = os.path.realpath(root)
        self._names = [root.rstrip("/") + "/", real.rstrip("/") + "/"]

    def close(self) -> None:
        os.close(self._descriptor)

    def open(self, path: str) -> Optional[BinaryIO]:
        """Open the regular file at `path`, which is relative to the tree; None for a directory."""
        descriptor = self._open(path)
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISREG(mode):
            return open(descriptor, "rb", buffering=0)
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            return None
        raise neither(path)

    def names(self, path: str) -> list[str]:
        """The names in the directory at `path`."""
        descriptor = self._open(path)
        try:
            return os.listdir(descriptor)  # noqa: PTH208 - it has no path
        finally:
            os.close(descriptor)

    def _open(self, path: str) -> int:
        walk = _Walk(self._descriptor)
        try:
            return self._follow(walk, path)
        finally:
            walk.close()

    def _follow(self, walk: _Walk, path: str) -> int:
        left = _parts(path)
        links = 0
        while left:
            name = left.pop()
            if name == "..":
                if not walk.leave():
                    raise leads_out(path, self._root)
                continue
            try:
                if not left:
                    return walk.open(name)
                walk.enter(name)
            except OSError as error:
                target = walk.link(name) if error.errno in _IS_LINK else None
                if target is None:
                    raise OSError(error.errno, os.strerror(error.errno or 0), path) from None
                links += 1
                if links > MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path) from None
                left += self._parts_of_target(walk, target, path)
        return walk.open(".")

    def _parts_of_target(self, walk: _Walk, target: str, path: str) -> list[str]:
        if not target.startswith("/"):
            return _parts(target)
        for root in self._names:
            if f"{target}/".startswith(root):
                walk.restart()
                return _parts(target[len(root) :])
        raise leads_out(path, self._root)


class _Walk:
    """The directories from the root down to where the walk is, all held open."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._below: list[int] = []

    @property
    def _here(self) -> int:
        return self._below[-1] if self._below else self._root

    def enter(self, name: str) -> None:
        self._below.append(os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=self._here))

    def leave(self) -> bool:
        """Go up; False in the root."""
        if not self._below:
            return False
        os.close(self._below.pop())
        return True

    def restart(self) -> None:
        while self.leave():
            continue

    def open(self, name: str) -> int:
        return os.open(name, machine.READ_FLAGS | os.O_NOFOLLOW, dir_fd=self._here)

    def link(self, name: str) -> Optional[str]:
        """The target of a link; None for what is none."""
        try:
            return os.readlink(name, dir_fd=self._here)
        except OSError:
            return None

    def close(self) -> None:
        self.restart()


def _parts(path: str) -> list[str]:
    """The names in a path, the first one last."""
    return [part for part in reversed(path.split("/")) if part not in ("", ".")]
