"""Files beneath a directory, for uploads: no link leads out of it. The platform's class of the same
name is chosen here.
"""

from __future__ import annotations

import sys

if sys.platform == "win32":
    from hostler_agent.commands.tree.windows import Tree
else:
    from hostler_agent.commands.tree.posix import Tree

__all__ = ["Tree"]
