"""Real jobs, in every containment that this machine allows."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hostler_agent.jobs import Containment

# Under importlib's mode a test finds no module beside it.
sys.path.append(str(Path(__file__).parent))

from jobkit import CONTAINMENTS, RecordingSink, Runner, VirtualClock, contained


@pytest.fixture
async def sink() -> RecordingSink:
    return RecordingSink()


@pytest.fixture
async def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture(params=CONTAINMENTS)
async def containment(request: pytest.FixtureRequest) -> AsyncIterator[Containment]:
    async with contained(request.param) as chosen:
        yield chosen


@pytest.fixture
async def runner(containment: Containment, tmp_path: Path) -> Runner:
    return Runner(containment, tmp_path)
