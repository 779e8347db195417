"""What all tests share: where real peers come from, and what happens without one."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import pytest

# Tests import what they share as `peers.<name>`; pytest's importlib mode adds no path by itself.
sys.path.insert(0, str(Path(__file__).parent))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test marked `peer(name)` where that peer is missing, or fail if peers are required.

    `tests/peers/<name>.py` (with `_` for `-`) defines `missing()`: None, or one line that says
    what is missing and how to get it.
    """
    for marker in item.iter_markers("peer"):
        (name,) = marker.args
        reason = importlib.import_module(f"peers.{name.replace('-', '_')}").missing()
        if reason is None:
            continue
        if os.environ.get("HOSTLER_REQUIRE_PEERS") == "1":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
