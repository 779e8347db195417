"""A state directory belongs to the hub whose id its database holds; another database is refused."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from hostler_hub.errors import SettingsError
from hostler_hub.runtime.settings import Settings
from hostler_hub.store import identity
from hostler_hub.store.open import open_store

if TYPE_CHECKING:
    from pathlib import Path

OURS, OTHER = "01J0000000000000000000000A", "01J0000000000000000000000B"


@pytest.fixture
def settings(tmp_path: Path, sqlite_template: Path) -> Settings:
    made = Settings(state_dir=tmp_path / "hub")
    made.prepare_state_dir()
    shutil.copy(sqlite_template, made.state_dir / "hub.sqlite3")
    return made


async def claimed(settings: Settings, fresh: str) -> str:
    async with open_store(settings) as store:
        return await identity.claim(store, settings, fresh)


async def test_it_is_made_once_and_recorded(settings: Settings) -> None:
    assert await claimed(settings, OURS) == OURS
    assert settings.identity_file.read_text() == f"{OURS}\n"
    assert await claimed(settings, OTHER) == OURS


async def test_a_database_of_before_is_recorded_too(settings: Settings) -> None:
    await claimed(settings, OURS)
    settings.identity_file.unlink()
    assert await claimed(settings, OTHER) == OURS
    assert settings.identity_file.read_text() == f"{OURS}\n"


async def test_another_hub_s_database_is_refused(settings: Settings) -> None:
    await claimed(settings, OURS)
    settings.identity_file.write_text(OTHER)
    with pytest.raises(SettingsError, match=f"belongs to hub {OTHER}, .*is that of hub {OURS}"):
        await claimed(settings, OTHER)
    settings.identity_file.unlink()  # as the message says
    assert await claimed(settings, OTHER) == OURS


async def test_a_forgotten_url_makes_no_empty_database(settings: Settings) -> None:
    """The hub ran on another database; the one in its directory was never made."""
    (settings.state_dir / "hub.sqlite3").unlink()
    settings.identity_file.write_text(OURS)
    with pytest.raises(SettingsError, match=r"there is no database .*HOSTLER_DATABASE_URL"):
        await claimed(settings, OTHER)
    assert not (settings.state_dir / "hub.sqlite3").exists()


async def test_an_empty_database_gets_no_second_identity(settings: Settings) -> None:
    settings.identity_file.write_text(OURS)
    with pytest.raises(SettingsError, match="the database is empty"):
        await claimed(settings, OTHER)
    settings.identity_file.unlink()
    assert await claimed(settings, OTHER) == OTHER  # nothing had been written
