"""What all tests share: where real peers come from, and what happens without one."""

from __future__ import annotations

import functools
import importlib
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

# Tests import what they share as `peers.<name>`; pytest's importlib mode adds no path by itself.
sys.path.insert(0, str(Path(__file__).parent))

# Whoever is held up is the machine, not the example: of a stalled one Hypothesis would say "flaky".
settings.register_profile(
    "hostler",
    settings.default,
    deadline=None,
    suppress_health_check=[*settings.default.suppress_health_check, HealthCheck.too_slow],
)
settings.load_profile("hostler")

# Peers of which there is one on a machine, or that take its names: of tests that run side by side
# in several processes, the files that need one of them stay in the same.
_ALONE = {"wine": "wine", "wsman": "wine", "docker": "docker", "ec2-machines": "ec2"}
_PEER = re.compile(rf"""\bpeer\("({"|".join(_ALONE)})"\)""")


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """By file, as `--dist loadfile`; and all files of a peer that is alone are as one."""
    return _ByPeer(config, log)


class _ByPeer(LoadScopeScheduling):
    def _split_scope(self, nodeid: str) -> str:
        return _scope(nodeid.partition("::")[0])


@functools.cache
def _scope(file: str) -> str:
    # The process that hands tests out has not collected them, and knows no marks.
    found = _PEER.search((Path(__file__).parents[1] / file).read_text())
    return file if found is None else _ALONE[found[1]]


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
