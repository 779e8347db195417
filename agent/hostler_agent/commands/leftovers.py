"""Removes the build directories that an earlier agent of this machine left behind.

A command ends with its agent, so the builds of these directories have ended. The hub gives the slot
to the next build as soon as the agent attaches, and that build must find nothing of an earlier one
(V10).
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

from hostler_agent.commands import removal
from hostler_agent.commands.filework import Progress

# As the hub names them: a build's ULID and the attempt. A stock master's builders have other names.
_WORKSPACE = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}\.[0-9]+")

log = logging.getLogger(__name__)


def remove_workspaces(workdir: Path) -> None:
    """Remove all build directories in `builds` of the workdir. A failure is logged."""
    try:
        left = [path for path in (workdir / "builds").iterdir() if _WORKSPACE.fullmatch(path.name)]
    except OSError:
        return
    for path in left:
        for failure in removal.remove(str(path), Progress()):
            log.warning("an old build's directory stays: %s", failure)
