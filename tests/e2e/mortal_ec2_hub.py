"""A hub for EC2 that is killed at one point of its work, or never: see `mortal`.

It waits seconds where the real one gives EC2 minutes to show what it has: a hub that died before it
knew what became of its order asks for as long as that.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from e2e import mortal

from hostler_hub.builds.service import Builds
from hostler_hub.drivers.ec2 import Ec2Driver, inventory, launch, spare, terminate

POINTS = {
    "after submit": (Builds, "submit"),
    "after keep": (Ec2Driver, "keep"),
}
ORDERS = {"never": lambda: None}
SHOWN_AFTER_S = 6.0
"""Longer than these tests' clouds hide anything."""

if __name__ == "__main__":
    inventory.VISIBLE_AFTER_S = inventory.TAGGED_AFTER_S = SHOWN_AFTER_S
    launch._POLL_INTERVAL_S = terminate._POLL_INTERVAL_S = spare._POLL_INTERVAL_S = 0.2
    mortal.serve(Ec2Driver, POINTS, ORDERS)
