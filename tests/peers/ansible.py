"""The ansible of this environment, in processes of its own."""

from __future__ import annotations

import sys
from pathlib import Path


def missing() -> str | None:
    """Why no play can be run and what to do about it, or None."""
    if Path(sys.executable).with_name("ansible-playbook").exists():
        return None
    return "ansible-playbook is missing: pip install -e '.[ansible]'"
