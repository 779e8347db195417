"""A disk that is soon full: a tmpfs of its own."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_NEEDS = "A small disk is mounted by root, in a machine or container that may mount (CAP_SYS_ADMIN)"


@functools.cache
def missing() -> str | None:
    """Why nothing can be mounted here, or None."""
    if os.geteuid() != 0:
        return _NEEDS
    with tempfile.TemporaryDirectory() as directory:
        if subprocess.run(_mount(directory, "64k"), check=False, capture_output=True).returncode:
            return _NEEDS
        subprocess.run(["umount", directory], check=True)
    return None


@contextlib.contextmanager
def mounted(directory: Path, size: str, *options: str) -> Iterator[Path]:
    """Of that size (as mount has it), gone afterwards with all that is on it. `options` are more of
    mount's: ro, noexec, ...
    """
    directory.mkdir(parents=True, exist_ok=True)
    subprocess.run(_mount(str(directory), ",".join((size, *options))), check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


@contextlib.contextmanager
def pinned(directory: Path, beneath: Path) -> Iterator[None]:
    """A directory that nobody can remove, since it is a mount's root; it is unmounted wherever
    below `beneath` it is by then, as a directory above it may be renamed.
    """
    directory.mkdir()
    subprocess.run(_mount(str(directory), "64k"), check=True)
    try:
        yield
    finally:
        for each in beneath.rglob(directory.name):
            if each.is_mount():
                subprocess.run(["umount", "--lazy", str(each)], check=True)


def fill(directory: Path, leave_bytes: int) -> Path:
    """Take all its room but this; the file that takes it."""
    ballast = directory / "ballast"
    ballast.write_bytes(b"x" * max(0, shutil.disk_usage(directory).free - leave_bytes))
    return ballast


def _mount(directory: str, size: str) -> list[str]:
    return ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", directory]
