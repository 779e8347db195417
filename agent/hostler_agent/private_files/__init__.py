"""Files that only their owner may read: tokens, secrets, and what holds them."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

if sys.platform == "win32":
    from hostler_agent.private_files.windows import create
else:
    from hostler_agent.private_files.posix import create

__all__ = ["create", "write_private"]


def write_private(path: Path, content: str, *, sync: bool = True) -> None:
    """Replace the file in one step, after its content is on the disk.

    Others never can read it, and a crash leaves the old content or the new. Raises OSError.
    Without `sync` the content need not be on the disk yet: for what no crash of the machine
    outlives anyway, as syncing takes longer than all the rest of an instance's start.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        fresh.unlink()  # a process of the same pid was killed while it wrote
    try:
        with open(create(fresh), "w", encoding="utf-8") as file:
            file.write(content)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        fresh.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise
