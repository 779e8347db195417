"""The agent's session secret, and the file that keeps it for the next process.

The hub binds an instance's one-time token to the first session it sees it with. A process that
takes the place of one that died must therefore show the same secret, or it is refused as a thief.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from pathlib import Path

STATE_DIRECTORY = ".hostler"
SECRET = re.compile(r"[A-Za-z0-9_-]{43}")


def session_secret(workdir: Path, owner: str) -> str:
    """The secret of `owner` (an instance or a worker's name), made if there is none yet.

    Raises OSError when the file can be neither read nor written.
    """
    path = workdir / STATE_DIRECTORY / f"session-{owner}"
    with contextlib.suppress(FileNotFoundError, UnicodeDecodeError):
        kept = path.read_text("ascii").strip()
        # A crash may have left an empty file; what the hub never saw may be replaced.
        if SECRET.fullmatch(kept):
            return kept
    secret = secrets.token_urlsafe(32)
    _write(path, secret)
    return secret


def _write(path: Path, secret: str) -> None:
    """Whole or not at all, and on the disk before the hub hears of it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        fresh.unlink()
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w", encoding="ascii") as file:
        file.write(secret + "\n")
        file.flush()
        os.fsync(descriptor)
    fresh.replace(path)
