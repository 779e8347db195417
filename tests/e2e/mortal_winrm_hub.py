"""A hub that is killed at one point of its work with a machine that it reaches by WinRM.

`mortal_winrm_hub.py POINT serve ...`; the points of `crash_points` are there as well.
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
from hostler_hub.drivers.windows_host import WindowsHost
from hostler_hub.drivers.winrm import WinrmDriver
from hostler_hub.transports.winrm_session import Session

POINTS: dict[str, tuple[Any, str]] = {
    "before push": (WindowsHost, "_push"),
    "after push": (WindowsHost, "_push"),
    "before start of it": (WinrmDriver, "_start"),
    "after start of it": (WinrmDriver, "_start"),
}
"""Name: what dies before or after it."""
IN_FLIGHT = {"before answer to start": "start", "before answer to stop": "stop"}
"""The order has left for the machine, and the hub will never hear what became of it."""


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def die_awaited() -> None:
    die()


def die_in_flight(action: str) -> None:
    feed = Session.feed

    def lethal_feed(self: Session, shell: str, command: str, content: bytes, deadline: Any) -> None:
        feed(self, shell, command, content, deadline)
        if ACTIONS.pop(command, "") == action:
            die()

    start = Session.start

    def noting_start(self: Session, shell: str, line: str, deadline: Any) -> str:
        command = start(self, shell, line, deadline)
        ACTIONS[command] = next((each for each in IN_FLIGHT.values() if f" {each} " in line), "")
        return command

    Session.feed, Session.start = lethal_feed, noting_start  # type: ignore[method-assign]


ACTIONS: dict[str, str] = {}
"""What the host verb is asked for, by the command's name."""


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
    owner, method = place(point, WinrmDriver)
    with armed(point, owner, method, death):
        return cli.main()


if __name__ == "__main__":
    sys.exit(main())
