"""A hub that is killed at one point of its work with a Docker daemon: see `mortal`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from e2e import mortal

from hostler_hub.drivers.docker import DockerDriver, containers

POINTS = {
    "before make": (containers, "make"),
    "after make": (containers, "make"),
    "before start of it": (containers, "start"),
    "after start of it": (containers, "start"),
    "before end": (containers, "end"),
    "after end": (containers, "end"),
    "before volumes": (containers, "remove_volumes"),
    "after volumes": (containers, "remove_volumes"),
}

if __name__ == "__main__":
    mortal.serve(DockerDriver, POINTS)
