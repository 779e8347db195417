"""The schema's version: upgraded when a hub starts, refused when a newer hub wrote it (D5).

A migration is one transaction on either database, so a hub killed halfway leaves the schema as it
was. Alembic is loaded only when there is something to upgrade; a start usually has nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from hostler_hub.store.backend import backend_for
from hostler_hub.store.errors import SchemaOutdated, SchemaTooNew
from hostler_hub.store.tuning import Tuning

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection

HEAD = "0003"
"""The newest migration in migrations/versions; a test holds it against them."""

KNOWN = ("0001", "0002", "0003")
"""Every revision this version can upgrade from, and HEAD."""


def current(c: Connection) -> str | None:
    """The database's revision, None for an empty database."""
    if not sa.inspect(c).has_table("alembic_version"):
        return None
    revision = c.execute(sa.text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    return None if revision is None else str(revision)


def check(c: Connection) -> None:
    """Raise SchemaTooNew or SchemaOutdated unless the schema is this version's."""
    revision = current(c)
    if revision == HEAD:
        return
    if revision is None or revision in KNOWN:
        raise SchemaOutdated(f"the schema is at {revision or 'nothing'}, this hub needs {HEAD}")
    raise SchemaTooNew(f"the schema is at {revision}, newer than this hub's {HEAD}")


def migrate(c: Connection) -> None:
    """Bring the schema to HEAD within the connection's open transaction."""
    try:
        check(c)
    except SchemaOutdated:
        from alembic import command  # noqa: PLC0415

        command.upgrade(alembic_config(c), "head")


def alembic_config(c: Connection | None = None) -> Config:
    """Alembic's configuration of our packaged migrations, to run on `c`."""
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = c
    return config


def upgrade(url: str) -> None:
    """Bring a database that nobody uses to HEAD; a store opened `exclusive` does it itself."""
    backend = backend_for(url, Tuning())
    engine = backend.writer()
    try:
        with engine.begin() as connection:
            migrate(connection)
    finally:
        engine.dispose()
        backend.close()
