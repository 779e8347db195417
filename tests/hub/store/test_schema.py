"""The schema's version: upgrade, refusal of a newer one (D5), migrations that match the tables."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from hostler_hub.store import schema
from hostler_hub.store.backend import backend_for
from hostler_hub.store.engine import Store
from hostler_hub.store.errors import SchemaOutdated, SchemaTooNew
from hostler_hub.store.tables import metadata
from hostler_hub.store.tuning import Tuning


@pytest.fixture
def engine(empty_database_url):
    engine = backend_for(empty_database_url, Tuning()).writer()
    yield engine
    engine.dispose()


def test_migrations_make_the_tables_that_the_code_uses(empty_database_url, engine):
    schema.upgrade(empty_database_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_head_and_known_name_the_packaged_migrations():
    scripts = ScriptDirectory.from_config(schema.alembic_config())
    assert scripts.get_current_head() == schema.HEAD
    assert {script.revision for script in scripts.walk_revisions()} == set(schema.KNOWN)


async def test_hub_upgrades_an_empty_database_and_opens_it_again(empty_database_url):
    for _ in range(2):
        async with Store(empty_database_url, exclusive=True) as store:
            assert await store.read(schema.current) == schema.HEAD


async def test_d5_newer_schema_is_refused(database_url):
    def pretend(c):
        c.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))

    async with Store(database_url) as store:
        await store.write(pretend)
    with pytest.raises(SchemaTooNew, match="9999"):
        async with Store(database_url, exclusive=True):
            pass
    with pytest.raises(SchemaTooNew):
        schema.upgrade(database_url)


async def test_tools_beside_the_hub_do_not_upgrade(empty_database_url):
    with pytest.raises(SchemaOutdated, match="nothing"):
        async with Store(empty_database_url):
            pass


def test_d5_migration_killed_halfway_leaves_nothing(empty_database_url, engine, monkeypatch):
    """Whatever stops a migration, the DDL before it is rolled back with it, on SQLite too."""
    from alembic import op

    def die(*_arguments, **_options):
        raise KeyboardInterrupt

    create_index = op.create_index
    monkeypatch.setattr(op, "create_index", die)
    with pytest.raises(KeyboardInterrupt):
        schema.upgrade(empty_database_url)
    with engine.connect() as connection:
        assert sa.inspect(connection).get_table_names() == []
    monkeypatch.setattr(op, "create_index", create_index)
    schema.upgrade(empty_database_url)
    with engine.connect() as connection:
        assert schema.current(connection) == schema.HEAD
