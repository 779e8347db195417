"""A hub that is killed at one point of its work with a machine that it reaches by SSH.

`mortal_ssh_hub.py POINT serve ...`; the points of `crash_points` are there as well.
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
from hostler_hub.drivers.posix_host import PosixHost
from hostler_hub.drivers.ssh import SshDriver
from hostler_hub.transports import ssh

POINTS: dict[str, tuple[Any, str]] = {
    "before push": (PosixHost, "_push"),
    "after push": (PosixHost, "_push"),
    "before start of it": (SshDriver, "_start"),
    "after start of it": (SshDriver, "_start"),
    "before end": (PosixHost, "end"),
    "after end": (PosixHost, "end"),
}
"""Name: what dies before or after it."""
IN_FLIGHT = {"before answer to start": "start", "before answer to stop": "stop"}
"""The order has left for the machine, and the hub will never hear what became of it."""


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def die_awaited() -> None:
    die()


def die_in_flight(action: str) -> None:
    run = ssh._run

    def lethal_run(connection: Any, deadline: Any, *, command: Any) -> Any:
        if action in command.argv:
            ssh._collect = lambda *_: die()
        return run(connection, deadline, command=command)

    ssh._run = lethal_run


def main() -> Any:
    point = sys.argv.pop(1)
    death = Death(die_awaited, die)
    if point in IN_FLIGHT:
        die_in_flight(IN_FLIGHT[point])
        return cli.main()
    if point in POINTS:
        owner, method = POINTS[point]
        setattr(owner, method, lethal(point, getattr(owner, method), death))
        return cli.main()
    owner, method = place(point, SshDriver)
    with armed(point, owner, method, death):
        return cli.main()


if __name__ == "__main__":
    sys.exit(main())
