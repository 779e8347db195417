"""Real jobs, in every containment that this machine allows."""

from __future__ import annotations

import secrets
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hostler_agent.jobs import Containment, choose_containment
from hostler_agent.jobs.errors import ContainmentUnavailable

# Under importlib's mode a test finds no module beside it.
sys.path.append(str(Path(__file__).parent))

from jobkit import CONTAINMENTS, RecordingSink, Runner, VirtualClock, cgroups, marked


@pytest.fixture
async def sink() -> RecordingSink:
    return RecordingSink()


@pytest.fixture
async def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture(params=CONTAINMENTS)
async def containment(request: pytest.FixtureRequest) -> AsyncIterator[Containment]:
    root_name = f"test-{secrets.token_hex(6)}"
    try:
        chosen = choose_containment(request.param, root_name)
    except ContainmentUnavailable as error:
        pytest.skip(f"needs write access to this machine's cgroups: {error}")
    assert chosen.name == request.param
    yield chosen
    await chosen.aclose()
    assert marked(root_name) == []
    assert cgroups(root_name) == []


@pytest.fixture
async def runner(containment: Containment, tmp_path: Path) -> Runner:
    return Runner(containment, tmp_path)
