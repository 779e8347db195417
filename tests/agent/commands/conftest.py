"""A real context that keeps what it gets, with a hub's side of transfers."""

from __future__ import annotations

import secrets
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hostler_agent.commands import secret_files
from hostler_agent.jobs import Containment, choose_containment

# Under importlib's mode a test finds no module beside it.
sys.path.append(str(Path(__file__).parent))

from commandkit import RecordingContext

from hostler_agent.wire.extension import CommandTerms


@pytest.fixture
async def containment() -> AsyncIterator[Containment]:
    chosen = choose_containment("auto", f"test-{secrets.token_hex(6)}")
    yield chosen
    await chosen.aclose()


@pytest.fixture
async def context(containment: Containment, tmp_path: Path) -> AsyncIterator[RecordingContext]:
    """As for a stock master."""
    yield RecordingContext(containment, str(tmp_path))
    secret_files.sweep(tmp_path)


@pytest.fixture
async def raw_context(context: RecordingContext) -> RecordingContext:
    """As for our hub."""
    context.terms = CommandTerms("lease", 1)
    return context
