"""Ansible's own collection for Windows, out of the `ansible` package."""

from __future__ import annotations

import sysconfig
from pathlib import Path


def missing() -> str | None:
    """Why it cannot be looked into and what to do about it, or None."""
    site = Path(sysconfig.get_paths()["purelib"])
    found = (site / "ansible_collections" / "ansible" / "windows").is_dir()
    return None if found else "the collection ansible.windows is missing: scripts/fetch-collections"
