"""Environments for drivers: two hubs on one machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostler_hub.drivers.contract import Environment
from hostler_hub.identifiers import new_ulid

# Nobody listens there: these instances boot and never attach, which is all a driver knows of.
NOWHERE = "ws://127.0.0.1:9/api/v1/agents/connect"


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment(new_ulid(), tmp_path / "ours", NOWHERE)


@pytest.fixture
def other_environment(tmp_path: Path) -> Environment:
    return Environment(new_ulid(), tmp_path / "theirs", NOWHERE)
