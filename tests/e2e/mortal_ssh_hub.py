"""A hub that is killed at one point of its work with a machine it reaches by SSH: see `mortal`."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from e2e import mortal

from hostler_hub.drivers.hosts.posix import PosixHost
from hostler_hub.drivers.ssh.driver import SshDriver
from hostler_hub.drivers.transports.ssh import session, transport

POINTS = {
    "before push": (PosixHost, "_push"),
    "after push": (PosixHost, "_push"),
    "before start of it": (SshDriver, "_start"),
    "after start of it": (SshDriver, "_start"),
    "before end": (PosixHost, "end_unstarted"),
    "after end": (PosixHost, "end_unstarted"),
}


def die_in_flight(action: str) -> None:
    """The order has left for the machine; the hub will never hear what became of it."""
    run = transport.run

    def lethal_run(connection: Any, deadline: Any, *, command: Any) -> Any:
        if action in command.argv:
            session._collect = lambda *_: mortal.die()
        return run(connection, deadline, command=command)

    transport.run = lethal_run


ORDERS = {
    "before answer to start": functools.partial(die_in_flight, "start"),
    "before answer to stop": functools.partial(die_in_flight, "stop"),
}

if __name__ == "__main__":
    mortal.serve(SshDriver, POINTS, ORDERS)
