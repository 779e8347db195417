"""The hub's identity: an id that is made once per database and with which it marks its instances.

The state directory records the id that its database holds. A hub that was started with another
database, mostly because its URL was forgotten, would not know the instances that it pays for, so it
is refused. The URL itself is not recorded: passwords and hosts change.
"""

from __future__ import annotations

import os

from sqlalchemy import Connection

from hostler_hub.errors import SettingsError
from hostler_hub.runtime import database_url, private_files
from hostler_hub.runtime.settings import Settings
from hostler_hub.store import meta
from hostler_hub.store.engine import Store

KEY = "hub"


async def claim(store: Store, settings: Settings, fresh: str) -> str:
    """The id that the database holds, or `fresh` where it holds none yet; recorded in the state
    directory. Raises SettingsError if the directory belongs to another hub.
    """
    known = await store.write(_own, fresh, _recorded(settings), settings)
    try:
        if _recorded(settings) is None:
            private_files.write(settings.identity_file, known + "\n")
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise SettingsError(f"{settings.identity_file} cannot be written: {reason}") from error
    return known


def refuse_lost_database(settings: Settings) -> None:
    """Raise SettingsError rather than make an empty SQLite database in a directory that belongs to
    a hub already.
    """
    file = database_url.file_of(settings.database_url)
    recorded = _recorded(settings)
    if recorded is not None and file is not None and not file.exists():
        raise _another(settings, recorded, f"there is no database {file}")


def _own(c: Connection, fresh: str, recorded: str | None, settings: Settings) -> str:
    known = meta.get(c, KEY)
    if recorded is not None and known != recorded:
        held = "is empty" if known is None else f"is that of hub {known}"
        raise _another(settings, recorded, f"the database {held}")
    if known is None:
        meta.put(c, KEY, fresh)
    return known or fresh


def _recorded(settings: Settings) -> str | None:
    try:
        return settings.identity_file.read_text().strip() or None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SettingsError(f"{settings.identity_file} cannot be read: {error.strerror}") from error


def _another(settings: Settings, recorded: str, found: str) -> SettingsError:
    return SettingsError(
        f"the state directory {settings.state_dir} belongs to hub {recorded}, but {found}: start"
        " the hub with the database_url (HOSTLER_DATABASE_URL, hub_database_url) that it had;"
        " another hub needs a state directory of its own. If this directory and this database are"
        f" to go together from now on, remove {settings.identity_file}"
    )
