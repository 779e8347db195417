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
from hostler_agent.commands.progress import Progress

# As the hub names them: a build's ULID and the attempt. A stock master's builders have other names.
_WORKSPACE = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}\.[0-9]+")

SLOTS, HOMES = ".hostler/slots", "homes"
"""The directories in the workdir that hold those of slots: what is the agent's, and their homes."""

log = logging.getLogger(__name__)


def remove_workspaces(workdir: Path) -> None:
    """Remove all build directories in `builds` of the workdir, and what belongs to its slots. Must
    be called before the first slot is opened. A failure is logged.
    """
    builds = [path for path in _entries(workdir / "builds") if _WORKSPACE.fullmatch(path.name)]
    for path in (*builds, *_entries(workdir / HOMES), *_entries(workdir / SLOTS)):
        for failure in removal.remove(str(path), Progress()):
            log.warning("an old build's directory stays: %s", failure)


def _entries(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except OSError:
        return []
