"""Real hubs with local agents; nothing of theirs outlives a test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from e2e.api import Api
from e2e.gates import Gate
from e2e.hub_process import HubProcess
from needs import needs
from peers import postgresql

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path


@pytest.fixture
def make_hub(tmp_path: Path) -> Iterator[Callable[..., HubProcess]]:
    """Makes a hub that is not started yet, on a state directory of its own."""
    made: list[HubProcess] = []

    def make(database_url: str | None = None) -> HubProcess:
        made.append(HubProcess(tmp_path / f"hub-{len(made)}", database_url))
        return made[-1]

    yield make
    for hub in made:
        hub.close()


@pytest.fixture(scope="module")
def shared_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    """One running hub for the tests of a file that do it no harm; workers' names are their own."""
    with HubProcess.running(tmp_path_factory.mktemp("shared") / "hub") as hub:
        yield hub


@pytest.fixture
async def api(shared_hub: HubProcess) -> AsyncIterator[Api]:
    """The shared hub's administrator."""
    async with Api(shared_hub.url, shared_hub.token) as made:
        yield made


@pytest.fixture
def make_gate(tmp_path: Path) -> Iterator[Callable[..., Gate]]:
    made: list[Gate] = []

    def make() -> Gate:
        made.append(Gate(tmp_path, f"gate-{len(made)}"))
        return made[-1]

    yield make
    for gate in made:
        gate.close()


@pytest.fixture(scope="session")
@needs("postgresql")
def postgresql_cluster() -> Iterator[postgresql.Cluster]:
    with postgresql.cluster() as cluster:
        yield cluster


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.peer("postgresql"))])
def database_url(request: pytest.FixtureRequest) -> Iterator[str | None]:
    """None is the hub's own SQLite file."""
    if request.param == "sqlite":
        yield None
        return
    cluster = request.getfixturevalue("postgresql_cluster")
    name = cluster.create()
    yield cluster.url(name)
    cluster.drop(name)
