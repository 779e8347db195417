"""A hub that is killed at one point of its work: `mortal_hub.py POINT serve ...`.

The program is the real one; only the named function is wrapped, so that SIGKILL comes exactly
before or after it, which from outside would be a matter of luck.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from crash_points import Death, armed, place

from hostler_hub import cli
from hostler_hub.drivers.local import LocalDriver


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def die_awaited() -> None:
    die()


if __name__ == "__main__":
    point = sys.argv.pop(1)
    # The local driver's create answers for what is there already before it spawns.
    owner, method = place(point, LocalDriver, {"create": "_spawn"})
    with armed(point, owner, method, Death(die_awaited, die)):
        sys.exit(cli.main())
