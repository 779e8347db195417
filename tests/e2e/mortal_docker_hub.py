"""A hub that is killed at one point of its work with a Docker daemon.

`mortal_docker_hub.py POINT serve ...`; the points of `crash_points` are there as well.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from crash_points import Death, armed, lethal, place

from hostler_hub import cli
from hostler_hub.drivers.docker import DockerDriver, containers

POINTS = {
    "before make": "make",
    "after make": "make",
    "before start of it": "start",
    "after start of it": "start",
    "before end": "end",
    "after end": "end",
    "before volumes": "remove_volumes",
    "after volumes": "remove_volumes",
}
"""Name: the function of the driver's module `containers`."""


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def die_awaited() -> None:
    die()


def main() -> Any:
    point = sys.argv.pop(1)
    death = Death(die_awaited, die)
    if point in POINTS:
        name = POINTS[point]
        setattr(containers, name, lethal(point, getattr(containers, name), death))
        return cli.main()
    owner, method = place(point, DockerDriver)
    with armed(point, owner, method, death):
        return cli.main()


if __name__ == "__main__":
    sys.exit(main())
