"""Unpacks a pushed archive into a directory named by its digest: there Python keeps compiled
modules, so that later starts take half the time.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import time
import zipfile
from pathlib import Path

from hostler_agent.instances.directories import Directories
from hostler_agent.instances.errors import REQUEST, HostError, of_system
from hostler_agent.instances.system import processes

KEEP_S = 24 * 3600.0
"""How long an unused older agent is kept: another hub may be about to use it."""


def install(archive: Path, sha256: str, directories: Directories) -> Path:
    """Unpack an agent's archive and remove it. Returns the agent's directory. Raises HostError."""
    target = directories.agents / sha256
    try:
        content = archive.read_bytes()
        if hashlib.sha256(content).hexdigest() != sha256:
            raise HostError(REQUEST, f"{archive} does not have the digest {sha256}")
        if not target.is_dir():
            _unpack(content, target)
        _remove_unused(directories, sha256)
    except OSError as error:
        raise of_system(error, "unpack the agent into", target) from error
    finally:
        with contextlib.suppress(OSError):
            archive.unlink()
    return target


def _unpack(content: bytes, target: Path) -> None:
    """Unpack completely or not at all, also while other processes unpack the same archive."""
    fresh = target.with_name(f".{target.name[:16]}.{os.getpid()}")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            for name in packed.namelist():  # the digest vouches for the names
                _write(fresh / name, packed.read(name))
        with contextlib.suppress(OSError):  # somebody else was quicker
            fresh.rename(target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    if not target.is_dir():
        raise OSError(0, "it could not be renamed", str(target))


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _remove_unused(directories: Directories, current: str) -> None:
    before = time.time() - KEEP_S
    for each in directories.agents.iterdir():
        is_old = each.name != current and each.stat().st_mtime < before
        if is_old and not processes.uses(directories, each):
            shutil.rmtree(each, ignore_errors=True)
