"""Private files on Windows."""

from __future__ import annotations

import msvcrt
import os
import sys
from pathlib import Path

assert sys.platform == "win32"

from hostler_agent.win32 import security


def create(path: Path) -> int:
    """Create a file for its owner, the system and its administrators alone.

    Returns a descriptor to write it. Raises OSError, also when the file exists.
    """
    handle = security.make_file(path)
    return msvcrt.open_osfhandle(handle.detach(), os.O_WRONLY | os.O_BINARY | os.O_NOINHERIT)
