"""What all tests share: where real peers come from, what happens without one, what a test may take.

Each test is marked by what it is: `e2e` if it drives hubs as processes (by its directory; elsewhere
by hand), `unit` if it does not, needs no peer and is short. Peers come from the marks `peer(name)`
and from the fixtures in use; what may take long says so by the mark `timeout`.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Tests import what they share as `peers.<name>`; pytest's importlib mode adds no path by itself.
TESTS = Path(__file__).parent
sys.path.insert(0, str(TESTS))

import needs  # noqa: E402
from scheduling import Scheduling  # noqa: E402

# Whoever is held up is the machine, not the example: of a stalled one Hypothesis would say "flaky".
settings.register_profile(
    "hostler",
    settings.default,
    deadline=None,
    suppress_health_check=[*settings.default.suppress_health_check, HealthCheck.too_slow],
)
settings.load_profile("hostler")

END_TO_END = ("e2e", "peers")
"""Directories whose tests drive real hubs or agents as processes."""
TIMEOUT_S = 180
"""What a test with a real peer or a hub's process may take."""
UNIT_TIMEOUT_S = 60
"""What is marked to take longer is not for `make unit`."""
DIRECTORIES_TIMEOUT_S = {"simulation": 60, "agent": 60}
"""The same for tests that compute much, and those that start processes; others: pyproject.toml."""


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Scheduling(), "hostler-scheduling")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark a test by what it needs."""
    needs.mark(item)
    directory = item.path.relative_to(TESTS).parts[0]
    if directory in END_TO_END:
        item.add_marker(pytest.mark.e2e)
    peers = needs.peers_of(item)
    is_real = bool(peers) or item.get_closest_marker("e2e") is not None
    if is_real:  # for the second look (second_look.py), which sees reports, not tests
        item.user_properties.append(("real", ", ".join(peers) or "processes"))
    timeout_s = TIMEOUT_S if is_real else DIRECTORIES_TIMEOUT_S.get(directory, 0)
    marked = item.get_closest_marker("timeout")
    if marked is None and timeout_s:
        item.add_marker(pytest.mark.timeout(timeout_s))
    if not is_real and (marked is None or marked.args[0] <= UNIT_TIMEOUT_S):
        item.add_marker(pytest.mark.unit)


def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[object], request: pytest.FixtureRequest
) -> None:
    """Let no peer be started for a test that does not say so."""
    needs.check(fixturedef, request)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test marked `peer(name)` where that peer is missing, or fail if peers are required.

    `tests/peers/<name>.py` (with `_` for `-`) defines `missing()`: None, or one line that says
    what is missing and how to get it.
    """
    for name in needs.peers_of(item):
        reason = importlib.import_module(f"peers.{name.replace('-', '_')}").missing()
        if reason is None:
            continue
        if os.environ.get("HOSTLER_REQUIRE_PEERS") == "1":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
