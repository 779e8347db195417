"""Removal of trees, never through a link: the platform's function of the same name is
chosen here.
"""

from __future__ import annotations

import sys

if sys.platform == "win32":
    from hostler_agent.commands.removal.windows import remove
else:
    from hostler_agent.commands.removal.posix import remove

__all__ = ["remove"]
