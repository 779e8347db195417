"""Slots with users of their own, and programs that run as a slot's jobs do."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent.parent))

sys.path.append(str(Path(__file__).parent))

from commandkit import RecordingContext
from slotkit import UIDS

from hostler_agent.commands.slots.posix import UserSlot, UserSlots, make
from hostler_agent.jobs import Containment
from hostler_agent.jobs.errors import UsersUnavailable
from hostler_agent.jobs.posix import namespaces
from hostler_agent.jobs.posix.users import UserPool


@pytest.fixture(params=["namespaces", "none"])
def has_namespaces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the agent may make namespaces, as in a virtual machine, or not, as in a container."""
    if request.param == "none":
        monkeypatch.setattr(namespaces, "problem", lambda: "unshare: Operation not permitted")
    elif (problem := namespaces.problem()) is not None:
        pytest.skip(f"needs root that may make namespaces: {problem}")
    return bool(request.param == "namespaces")


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that everybody may enter: other runs of tests close what pytest gives us."""
    with tempfile.TemporaryDirectory(prefix="hostler-slots-", dir="/var/tmp") as made:
        Path(made).chmod(0o711)
        yield Path(made)


@pytest.fixture
def base(tmp_path: Path, open_directory: Path, has_namespaces: bool) -> Path:
    """The agent's base directory: below one that only the agent may enter, unless there are no
    namespaces to lead a build through it."""
    if not has_namespaces:
        return open_directory / "work"
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    return private / "work"


@pytest.fixture
def pool() -> Iterator[UserPool]:
    try:
        made = UserPool(UIDS, ())
    except UsersUnavailable as error:
        pytest.skip(f"needs root: {error}")
    yield made
    made.close()


@pytest.fixture
async def slots(base: Path, pool: UserPool) -> AsyncIterator[UserSlots]:
    made = make(base, pool, no_new_privileges=False)
    yield made
    await made.aclose()
    assert [str(path) for path in base.glob("homes/*")] == []


@pytest.fixture
async def slot(slots: UserSlots) -> AsyncIterator[UserSlot]:
    """That of the lease `lease`."""
    async with slots.use("lease") as one:
        assert isinstance(one, UserSlot)
        yield one


@pytest.fixture
async def slot_context(containment: Containment, slots: UserSlots, base: Path) -> RecordingContext:
    """For commands that run in the slot of the lease `lease`."""
    return RecordingContext(containment, str(base), slots=slots)
