"""What all tests share: where real peers come from, and what happens without one."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import pytest

# Tests import what they share as `peers.<name>`; pytest's importlib mode adds no path by itself.
sys.path.insert(0, str(Path(__file__).parent))

# Peers of which there is one on a machine, or that take its names: of tests that run side by side
# in several processes, those with one of them stay in the same.
_ALONE = {"wine": "wine", "wsman": "wine", "docker": "docker", "ec2-machines": "ec2"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test a process to be run in (`-n 2 --dist loadgroup`): that of its file's tests, or
    that of its peer's, which begin since they take longest.
    """
    groups: dict[pytest.Item, str] = {}
    for item in items:
        peers = (marker.args[0] for marker in item.iter_markers("peer"))
        alone = next((_ALONE[name] for name in peers if name in _ALONE), None)
        groups[item] = alone or item.nodeid.partition("::")[0]
        item.add_marker(pytest.mark.xdist_group(groups[item]))
    items.sort(key=lambda item: groups[item] not in _ALONE.values())


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
