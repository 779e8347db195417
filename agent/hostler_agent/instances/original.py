"""Tells an instance's own directory from a copy of it.

A directory can be copied with all it holds, or its machine's disk cloned; what is in it then names
an instance that it is not. So `mark.json` records the identity of the directory that it was written
in: its number on the file system (a copy has another), its path, and the machine. A directory may
be moved, and its record of an earlier version has no identity: neither makes it a copy.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hostler_agent.instances.directories import read_json
from hostler_agent.instances.system_files import files

MARK = "mark.json"
_KEY = "original"


def identity(directory: Path) -> dict[str, Any]:
    """What `mark.json` records about its directory; empty where nothing is certain. Raises OSError.

    On a file system of the network all machines see the same directory, and the numbers of its
    files may change.
    """
    if files.is_on_network(directory):
        return {}
    number = directory.stat().st_ino
    here = {"machine": files.machine_id(), "number": number, "path": str(directory.resolve())}
    return {_KEY: here}


def copy_evidence(directory: Path, about: Mapping[str, Any]) -> str:
    """Why the directory, whose `mark.json` is `about`, is a copy; empty if it is the original."""
    recorded = about.get(_KEY)
    if not isinstance(recorded, dict):
        return ""
    machine = files.machine_id()
    if machine and recorded.get("machine") not in ("", machine):
        return "its directory was made on another machine, of which this disk is a copy"
    return _other_directory(directory, recorded)


def copy_on_machine(directory: Path) -> str:
    """Why a directory in which a process of this machine runs is a copy; empty if it is not, or if
    nothing can be read there.
    """
    recorded = read_json(directory / MARK).get(_KEY)
    return _other_directory(directory, recorded) if isinstance(recorded, dict) else ""


def _other_directory(directory: Path, recorded: Mapping[str, Any]) -> str:
    made = str(recorded.get("path"))
    with contextlib.suppress(OSError):
        if directory.stat().st_ino != recorded.get("number"):
            return f"its directory is a copy of {made}"
        # The number is the same in a snapshot of the file system as well: there are two then.
        is_elsewhere = str(directory.resolve()) != made
        if is_elsewhere and read_json(Path(made, MARK)).get(_KEY) == recorded:
            return f"its directory is a snapshot of {made}"
    return ""
