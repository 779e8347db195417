"""A hub that is killed at one point of its work with a host it reaches by WinRM: see `mortal`."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from e2e import mortal

from hostler_hub.drivers.hosts.windows import WindowsHost
from hostler_hub.drivers.transports.winrm.session import Session
from hostler_hub.drivers.winrm import WinrmDriver

POINTS = {
    "before push": (WindowsHost, "_push"),
    "after push": (WindowsHost, "_push"),
    "before start of it": (WinrmDriver, "_start"),
    "after start of it": (WinrmDriver, "_start"),
}


def die_in_flight(action: str) -> None:
    """The order has left for the machine; the hub will never hear what became of it."""
    start, feed = Session.start, Session.feed
    commands: set[str] = set()

    def noting_start(self: Session, shell: str, line: str, deadline: Any) -> str:
        command = start(self, shell, line, deadline)
        if f" {action} " in line:
            commands.add(command)
        return command

    def lethal_feed(self: Session, shell: str, command: str, content: bytes, deadline: Any) -> None:
        feed(self, shell, command, content, deadline)
        if command in commands:
            mortal.die()

    Session.start, Session.feed = noting_start, lethal_feed  # type: ignore[method-assign]


ORDERS = {
    "before answer to start": functools.partial(die_in_flight, "start"),
    "before answer to stop": functools.partial(die_in_flight, "stop"),
}

if __name__ == "__main__":
    mortal.serve(WinrmDriver, POINTS, ORDERS)
