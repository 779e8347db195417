"""systemd's own judgement of a unit: needs its tools, no running systemd."""

from __future__ import annotations

import shutil


def missing() -> str | None:
    """What is missing, and how to get it, or None."""
    if shutil.which("systemd-analyze") is None:
        return "systemd-analyze is missing: apt-get install systemd"
    return None
