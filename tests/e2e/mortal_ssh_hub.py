"""A hub that is killed at one point of its work with a machine it reaches by SSH: see `mortal`."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from e2e import mortal

from hostler_hub.drivers.posix_host import PosixHost
from hostler_hub.drivers.ssh import SshDriver
from hostler_hub.transports import ssh

POINTS = {
    "before push": (PosixHost, "_push"),
    "after push": (PosixHost, "_push"),
    "before start of it": (SshDriver, "_start"),
    "after start of it": (SshDriver, "_start"),
    "before end": (PosixHost, "end"),
    "after end": (PosixHost, "end"),
}


def die_in_flight(action: str) -> None:
    """The order has left for the machine; the hub will never hear what became of it."""
    run = ssh._run

    def lethal_run(connection: Any, deadline: Any, *, command: Any) -> Any:
        if action in command.argv:
            ssh._collect = lambda *_: mortal.die()
        return run(connection, deadline, command=command)

    ssh._run = lethal_run


ORDERS = {
    "before answer to start": functools.partial(die_in_flight, "start"),
    "before answer to stop": functools.partial(die_in_flight, "stop"),
}

if __name__ == "__main__":
    mortal.serve(SshDriver, POINTS, ORDERS)
