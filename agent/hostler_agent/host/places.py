"""Where things lie in the directory of a machine's agents, and who may touch them when."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

from hostler_agent.host.errors import BUSY, NOT_PERMITTED, HostError, of_system

assert sys.platform != "win32"

LOCK_DEADLINE_S = 30.0
_LOCK_PAUSE_S = 0.02
_GONE = b"gone"
FORGET_AFTER_S = 24 * 3600.0
"""No start is under way that long: what says `gone` has served its purpose."""
_LEFT = ".left-"


class Place:
    """The directory. Raises HostError when it cannot be ours alone."""

    def __init__(self, directory: str) -> None:
        self.root = Path(directory).expanduser().absolute()
        self.agents = self.root / "agents"
        self.instances = self.root / "instances"
        try:
            for path in (self.root, self.agents, self.instances):
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
                _check_private(path)
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

    def remove(self, instance: str) -> Optional[str]:
        """Remove what an instance has left; returns why something of it had to stay."""
        left = self.instances / f"{_LEFT}{instance}"
        with contextlib.suppress(FileNotFoundError):
            self.instance(instance).rename(left)
        reason: Optional[str] = None
        for each in self.instances.glob(f"{_LEFT}*"):  # also what earlier ones have left
            reason = _remove_tree(each) if each == left else (_remove_tree(each) and reason)
        return reason

    def forget_old(self) -> None:
        """Remove what says `gone` of instances that ended long ago."""
        before = time.time() - FORGET_AFTER_S
        for path in self.instances.glob("*.lock"):
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < before and path.read_bytes() == _GONE:
                    path.unlink()


class Lock:
    """A held lock on one instance; `gone` outlives it."""

    def __init__(self, number: int) -> None:
        self._number = number

    @property
    def is_gone(self) -> bool:
        """Whether the instance was ended, and must not be started any more."""
        return os.pread(self._number, len(_GONE), 0) == _GONE

    def mark_gone(self) -> None:
        """From now on no start has an effect; raises HostError."""
        try:
            os.pwrite(self._number, _GONE, 0)
            os.fsync(self._number)
        except OSError as error:
            raise of_system(error, "note the instance's end") from error


def write_private(path: Path, content: str) -> None:
    """Whole or not at all, on the disk, and never readable by others; raises OSError."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    try:
        with open(os.open(fresh, flags, 0o600), "w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file; empty when there is none that can be read."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _check_private(path: Path) -> None:
    found = path.stat()
    if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise HostError(
            NOT_PERMITTED, f"{path} must belong to the user who logs in, and nobody else may write"
        )


def _open_lock(path: Path, deadline: float) -> int:
    """The lock's descriptor, held. A lock that was forgotten meanwhile is opened anew."""
    while True:
        try:
            number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise of_system(error, "open") from error
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(number), path.stat()):
                    return number
        except BlockingIOError:
            if time.monotonic() >= deadline:
                os.close(number)
                raise HostError(BUSY, f"{path.name} is held by another") from None
            time.sleep(_LOCK_PAUSE_S)
        os.close(number)


def _remove_tree(path: Path) -> Optional[str]:
    """Also of directories that a build has made read-only; returns why something stays."""
    shutil.rmtree(path, ignore_errors=True)
    if not path.exists():
        return None
    for directory, _, _ in os.walk(path):
        with contextlib.suppress(OSError):
            Path(directory).chmod(0o700)
    try:
        shutil.rmtree(path)
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    return None
