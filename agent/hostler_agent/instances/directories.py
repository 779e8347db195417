"""Where things lie in the directory of a machine's agents, and who may touch them when."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

from hostler_agent.instances.errors import BUSY, DISK_FULL, HostError, kind_of, of_system
from hostler_agent.instances.system_files import files

LOCK_DEADLINE_S = 30.0
_LOCK_PAUSE_S = 0.02
_GONE = b"gone"
"""Its size alone counts: on a full disk a hole of that size stands for it, which takes no room."""
FORGET_AFTER_S = 24 * 3600.0
"""No start is under way that long: what says `gone` has served its purpose."""
TAIL_BYTES = 4000
_LEFT = ".left-"


class Directories:
    """The directory. Raises HostError when it cannot be ours alone."""

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
        """An instance's own directory."""
        return self.instances / instance

    def known(self) -> list[str]:
        """The instances that have a directory here, whoever's they are."""
        found = (each.name for each in self.instances.iterdir() if each.is_dir())
        return sorted(name for name in found if not name.startswith("."))

    @contextlib.contextmanager
    def locked(self, instance: str, deadline_s: float = LOCK_DEADLINE_S) -> Iterator[Lock]:
        """Nobody else starts, looks at or ends the instance meanwhile; raises HostError."""
        number = _open_lock(self.instances / f"{instance}.lock", time.monotonic() + deadline_s)
        try:
            yield Lock(number)
        finally:
            os.close(number)

    def is_gone(self, instance: str) -> bool:
        """Whether it was ended, for one that does not want to hold the lock."""
        try:
            return (self.instances / f"{instance}.lock").stat().st_size >= len(_GONE)
        except FileNotFoundError:
            return False

    def remove(self, instance: str) -> Optional[str]:
        """Remove what an instance has left; returns why something of it had to stay."""
        left = self.instances / f"{_LEFT}{instance}"
        with contextlib.suppress(FileNotFoundError):
            files.rename(self.instance(instance), left)
        reason: Optional[str] = None
        for each in self.instances.glob(f"{_LEFT}*"):  # also what earlier ones have left
            why = files.remove_tree(each)
            reason = why if each == left else reason
        return reason

    def forget_old(self) -> None:
        """Remove what says `gone` of instances that ended long ago."""
        before = time.time() - FORGET_AFTER_S
        for path in self.instances.glob("*.lock"):
            with contextlib.suppress(OSError):
                seen = path.stat()
                if seen.st_mtime < before and seen.st_size >= len(_GONE):
                    path.unlink()


class Lock:
    """A held lock on one instance; `gone` outlives it."""

    def __init__(self, number: int) -> None:
        self._number = number

    @property
    def is_gone(self) -> bool:
        """Whether the instance was ended, and must not be started any more."""
        return os.fstat(self._number).st_size >= len(_GONE)

    def mark_gone(self) -> None:
        """From now on no start has an effect; raises HostError."""
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


def write_private(path: Path, content: str) -> None:
    """Write a file, whole or not at all, that is never readable by others. Raises OSError.

    It is not synced to the disk, which would take longer than all the rest of a start: a crash of
    the machine ends its instances as well.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(files.create_private(fresh), "w", encoding="utf-8") as file:
            file.write(content)
        fresh.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise


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
    """The lock's descriptor, held. A lock that was forgotten meanwhile is opened anew."""
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
