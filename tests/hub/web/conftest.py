"""Fixtures for the web's tests: a hub of its own for every test, and clients of any role."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx2
import pytest
from hub.web.harness import Api, Site, api_on

from hostler_hub.app import Sources
from hostler_hub.drivers import agent_archive
from hostler_hub.drivers.contract import AgentArchive
from hostler_hub.drivers.permanent import PermanentDriver
from hostler_hub.runtime.notify_settings import NotifySettings
from hostler_hub.runtime.settings import Settings
from hostler_hub.specs.caller import Role


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> AgentArchive:
    """The agent's archive, made once: making it takes longer than starting a hub."""
    return agent_archive.install(tmp_path_factory.mktemp("archive"))


@pytest.fixture
def site(sqlite_template: Path, tmp_path: Path, archive: AgentArchive) -> Site:
    notify = NotifySettings(mail=("ops@example.org",))
    settings = Settings(state_dir=tmp_path / "hub", port=1, notify=notify)
    settings.prepare_state_dir()
    shutil.copy(sqlite_template, settings.state_dir / "hub.sqlite3")
    sources = Sources(
        drivers=lambda: {"permanent": PermanentDriver}, archive=lambda _directory: archive
    )
    return Site(settings, sources)


@pytest.fixture
async def api(site: Site) -> AsyncIterator[Api]:
    async with api_on(site) as made:
        yield made


AsRole = Callable[[Role], Awaitable[httpx2.AsyncClient]]


@pytest.fixture
def as_role(api: Api) -> AsRole:
    """Makes a client that sends a token of the role."""

    async def make(role: Role) -> httpx2.AsyncClient:
        return api.client(await api.token(role))

    return make


@pytest.fixture
async def operator(as_role: AsRole) -> httpx2.AsyncClient:
    return await as_role(Role.OPERATOR)


@pytest.fixture
async def admin(as_role: AsRole) -> httpx2.AsyncClient:
    return await as_role(Role.ADMIN)
