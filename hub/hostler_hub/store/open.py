"""Opens the hub's store and explains errors in terms of the operator's settings."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from sqlalchemy.exc import SQLAlchemyError

from hostler_hub.errors import SettingsError
from hostler_hub.runtime import database_url
from hostler_hub.runtime.settings import Settings
from hostler_hub.store import identity, restores
from hostler_hub.store.engine import Store
from hostler_hub.store.errors import StoreError

# The store itself is patient with an outage; who starts a hub wants to know that it will not.
_OPEN_S = 15.0


@contextlib.asynccontextmanager
async def open_store(settings: Settings) -> AsyncIterator[Store]:
    """The store that the settings name, exclusive to this hub and with the current schema.

    Raises SettingsError if it cannot be opened. Messages never repeat the URL, which may hold a
    password.
    """
    file = database_url.file_of(settings.database_url)
    if file is not None and not file.parent.is_dir():
        raise SettingsError(f"database_url: there is no directory {file.parent}")
    restores.refuse_unfinished(settings)
    identity.refuse_lost_database(settings)
    try:
        store = Store(settings.database_url, exclusive=True)
    except (SQLAlchemyError, ValueError) as error:
        raise SettingsError("database_url: this is no database URL") from error
    try:
        async with asyncio.timeout(_OPEN_S):
            await store.open()
    except TimeoutError as error:
        await store.aclose()
        raise SettingsError(f"the database does not answer within {_OPEN_S:.0f} s") from error
    except StoreError as error:
        await store.aclose()
        raise SettingsError(f"the database cannot be used: {_first_line(error)}") from error
    try:
        yield store
    finally:
        await store.aclose()


def _first_line(error: StoreError) -> str:
    return str(error).partition("\n")[0]
