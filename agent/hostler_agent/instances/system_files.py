"""Directories, files and locks as this platform has them: the one place that chooses."""

from __future__ import annotations

import sys

if sys.platform == "win32":
    from hostler_agent.instances.windows import files
else:
    from hostler_agent.instances.posix import files

__all__ = ["files"]
