"""A hub that is killed at one point of its work with machines of its own: see `mortal`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from e2e import mortal

from hostler_hub.drivers.local import LocalDriver

if __name__ == "__main__":
    # The local driver's create answers for what is there already before it starts an agent.
    mortal.serve(LocalDriver, driver_methods={"create": "_start"})
