"""A hub for EC2 that is killed at one point of its work, or never.

It waits seconds where the real one gives EC2 minutes to show what it has: a hub that died before it
knew what became of its order asks for as long as that.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from crash_points import Death, armed, place

from hostler_hub import cli
from hostler_hub.drivers.ec2 import Ec2Driver, ending, launch, sight, spare
from hostler_hub.queue import Queue

NEVER = "never"
OWN = {
    "after submit": (Queue, "submit"),
    "after keep": (Ec2Driver, "keep"),
}
"""Points that are of no use elsewhere."""
SHOWN_AFTER_S = 6.0
"""Longer than these tests' clouds hide anything."""


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def die_awaited() -> None:
    die()


def main() -> Any:
    point = sys.argv.pop(1)
    sight.VISIBLE_AFTER_S = sight.TAGGED_AFTER_S = SHOWN_AFTER_S
    launch._LOOK_EVERY_S = ending._LOOK_EVERY_S = spare._LOOK_EVERY_S = 0.2
    if point == NEVER:
        return cli.main()
    owner, method = OWN[point] if point in OWN else place(point, Ec2Driver)
    with armed(point, owner, method, Death(die_awaited, die)):
        return cli.main()


if __name__ == "__main__":
    sys.exit(main())
