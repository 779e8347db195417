"""The agent's session secret, and the file that keeps it for the next process.

The hub binds an instance's one-time token to the first session it sees it with. A process that
takes the place of one that died must therefore show the same secret, or it is refused as a thief.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from pathlib import Path

from hostler_agent.private_files import write_private

STATE_DIRECTORY = ".hostler"
SECRET = re.compile(r"[A-Za-z0-9_-]{43}")


def session_secret(workdir: Path, owner: str) -> str:
    """Return the secret of `owner` (an instance or a worker's name); create it if there is none.

    Raises OSError when the file can be neither read nor written.
    """
    path = workdir / STATE_DIRECTORY / f"session-{owner}"
    with contextlib.suppress(FileNotFoundError, UnicodeDecodeError):
        kept = path.read_text("ascii").strip()
        # A crash may have left an empty file; what the hub never saw may be replaced.
        if SECRET.fullmatch(kept):
            return kept
    secret = secrets.token_urlsafe(32)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(path, secret + "\n")  # on the disk before the hub hears of it
    return secret
