"""Chooses the platform's module for directories, files and locks. No other module chooses."""

from __future__ import annotations

import sys

if sys.platform == "win32":
    from hostler_agent.instances.windows import files
else:
    from hostler_agent.instances.posix import files

__all__ = ["files"]
