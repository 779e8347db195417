"""The directories of a machine's agents and instances, and the locks on instances."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hostler_agent.instances.errors import BUSY, DISK_FULL, LEFT, HostError, kind_of, of_system
from hostler_agent.instances.system_files import files

LOCK_DEADLINE_S = 30.0
_LOCK_PAUSE_S = 0.02
_GONE = b"gone"
"""The content of the lock file of an ended instance. Only its size counts: on a full disk the file
is extended to that size by a hole, which takes no room."""
FORGET_AFTER_S = 24 * 3600.0
"""The age at which the lock of an ended instance is removed: no start is delayed for that long."""
FORGET_EVERY_S = 3600.0
TAIL_BYTES = 4000
_LEFT = ".left-"


class Directories:
    """The directory of a machine's agents and its parts, made if they are missing. Raises HostError
    if others may write them.
    """

    def __init__(self, directory: str) -> None:
        self.root = Path(directory).expanduser().absolute()
        self.agents = self.root / "agents"
        self.instances = self.root / "instances"
        try:
            for path in (self.root, self.agents, self.instances):
                files.make_private(path)
        except OSError as error:
            raise of_system(error, "make the directory") from error

    def instance(self, instance: str) -> Path:
        """The path of an instance's own directory."""
        return self.instances / instance

    def known(self) -> list[str]:
        """The instances that have a directory here, of all hubs."""
        with os.scandir(self.instances) as entries:  # no call for each of many locks
            found = [each.name for each in entries if each.is_dir()]
        return sorted(name for name in found if not name.startswith("."))

    @contextlib.contextmanager
    def locked(self, instance: str, deadline_s: float = LOCK_DEADLINE_S) -> Iterator[Lock]:
        """Hold the instance's lock: nobody else starts, inspects or ends it. Raises HostError."""
        number = _open_lock(self.instances / f"{instance}.lock", time.monotonic() + deadline_s)
        try:
            yield Lock(number)
        finally:
            os.close(number)

    def is_gone(self, instance: str) -> bool:
        """Whether the instance was ended, without taking its lock."""
        try:
            return (self.instances / f"{instance}.lock").stat().st_size >= len(_GONE)
        except FileNotFoundError:
            return False

    def remove(self, instance: str) -> None:
        """Remove an instance's directory. Raises HostError if some of it is left."""
        left = self.instances / f"{_LEFT}{instance}"
        try:
            files.rename(self.instance(instance), left)
        except FileNotFoundError:  # never made, or renamed by an earlier call
            pass
        except OSError as error:
            raise of_system(error, "remove the directory", self.instance(instance)) from error
        why = files.remove_tree(left)
        if why is None and os.path.lexists(left):
            why = f"{left} is still there"
        if why is not None:
            raise HostError(LEFT, f"cannot remove what the instance has left: {why}")

    def remove_left(self) -> None:
        """Remove what earlier instances left whose end nobody orders any more, at most every
        FORGET_EVERY_S: one that cannot be removed must not hold up all others.
        """
        if self._is_due(".swept-left"):
            for each in self.instances.glob(f"{_LEFT}*"):
                files.remove_tree(each)

    def _is_due(self, name: str) -> bool:
        """Whether FORGET_EVERY_S have passed since this was due last."""
        swept, now = self.root / name, time.time()
        with contextlib.suppress(FileNotFoundError):
            if swept.stat().st_mtime > now - FORGET_EVERY_S:
                return False
        with contextlib.suppress(OSError):  # a full disk
            swept.touch(0o600)
        return True

    def forget_old(self) -> None:
        """Remove the locks of instances that ended long ago, at most every FORGET_EVERY_S."""
        if not self._is_due(".swept"):
            return
        before = time.time() - FORGET_AFTER_S
        for path in self.instances.glob("*.lock"):
            with contextlib.suppress(OSError):
                seen = path.stat()
                if seen.st_mtime < before and seen.st_size >= len(_GONE):
                    path.unlink()


class Lock:
    """A held lock on one instance. That the instance is gone stays written in its file."""

    def __init__(self, number: int) -> None:
        self._number = number

    @property
    def is_gone(self) -> bool:
        """Whether the instance was ended, and must not be started any more."""
        return os.fstat(self._number).st_size >= len(_GONE)

    def mark_gone(self) -> None:
        """Write that the instance is gone: no later start has an effect. Raises HostError."""
        try:
            try:
                files.write_at_start(self._number, _GONE)
            except OSError as error:
                if kind_of(error) != DISK_FULL:
                    raise
                os.ftruncate(self._number, len(_GONE))
            os.fsync(self._number)
        except OSError as error:
            raise of_system(error, "note the instance's end") from error


def tail(path: Path, size: int = TAIL_BYTES) -> str:
    """The end of a text file; empty if it cannot be read."""
    try:
        with open(files.open_own(path), "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - size))
            return file.read(size).decode("utf-8", "replace").strip()
    except OSError:
        return ""


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file; empty if there is none that can be read."""
    try:
        with open(files.open_own(path), "rb") as file:
            content = json.loads(file.read())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _open_lock(path: Path, deadline: float) -> int:
    """Take a lock and return its descriptor. A lock that `forget_old` removed is opened anew."""
    while True:
        try:
            number = files.open_lock(path)
        except OSError as error:
            raise of_system(error, "open") from error
        if files.take(number):
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(number), path.stat()):
                    return number
        elif time.monotonic() >= deadline:
            os.close(number)
            raise HostError(BUSY, f"{path.name} is held by another")
        else:
            time.sleep(_LOCK_PAUSE_S)
        os.close(number)
