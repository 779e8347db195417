"""Chooses the platform's module for processes. No other module chooses."""

from __future__ import annotations

import sys

from hostler_agent.instances.system_files import files

if sys.platform == "win32":
    from hostler_agent.instances.windows import processes
else:
    from hostler_agent.instances.posix import processes

__all__ = ["files", "processes"]
