"""Files of the hub that only its own user may read. Standard library only."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def write(path: Path, content: bytes | str, mode: int = 0o600) -> None:
    """Replace the file in one step, after its content is on the disk.

    Whoever reads it meanwhile gets the old content or the new, also after a crash; nobody whom
    ``mode`` leaves out ever can. Raises OSError.
    """
    data = content.encode() if isinstance(content, str) else content
    fresh = path.with_name(f".{path.name[:200]}.{secrets.token_hex(4)}")
    descriptor = os.open(fresh, _NEW, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def open_or_create(path: str | Path, flags: int) -> int:
    """Open a file with ``flags``; create it for its owner alone if it is missing.

    Returns a descriptor that no child process inherits. Fits ``open(..., opener=...)``. Raises
    OSError.
    """
    return os.open(path, flags | os.O_CREAT | os.O_CLOEXEC, 0o600)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Replace the file by a JSON object; see ``write``."""
    write(path, json.dumps(value))


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty if the file is missing or holds anything else."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
