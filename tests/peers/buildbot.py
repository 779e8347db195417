"""Buildbot, as its makers ship it: a master for our agent, a worker for our hub."""

from __future__ import annotations

import importlib.util
import sys
from importlib import metadata
from pathlib import Path

_INSTALL = "is missing: pip install buildbot==4.3.0 buildbot-worker==4.3.0"


def missing() -> str | None:
    """What of Buildbot is not installed and how to get it, or None."""
    for name in ("buildbot", "buildbot-worker"):
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            return f"{name} {_INSTALL}"
        if not program(name).exists():
            return f"{name}'s program {_INSTALL}"
    if importlib.util.find_spec("autobahn") is None:
        return f"autobahn, which Buildbot's protocol needs, {_INSTALL}"
    return None


def program(name: str) -> Path:
    """`buildbot` or `buildbot-worker` of the environment that runs the tests."""
    return Path(sys.executable).parent / name
