"""Private files on POSIX."""

from __future__ import annotations

import os
import sys
from pathlib import Path

assert sys.platform != "win32"


def create(path: Path) -> int:
    """Create a file that only its owner may read or write. Returns a descriptor to write it.

    Raises OSError, also when the file exists.
    """
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
