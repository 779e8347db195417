"""Directories, files and locks as this platform has them: the one place that chooses."""

from __future__ import annotations

import sys

if sys.platform == "win32":
    from hostler_agent.host import windows_files as files
else:
    from hostler_agent.host import posix_files as files

__all__ = ["files"]
