"""Databases for the hub's tests: every test gets a fresh one.

Those of the store, and of what has statements of its own, get one of each kind (`database_url`).
What works on a store that is tested on both needs one (`sqlite_url`).
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from needs import needs
from peers import postgresql

from hostler_hub.store import schema

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DATABASES = ["sqlite", pytest.param("postgresql", marks=pytest.mark.peer("postgresql"))]


@pytest.fixture(scope="session")
@needs("postgresql")
def postgresql_cluster() -> Iterator[postgresql.Cluster]:
    """One PostgreSQL server for the whole run."""
    with postgresql.cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file with our schema, to copy."""
    path = tmp_path_factory.mktemp("template") / "hub.sqlite3"
    schema.upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def postgresql_template(postgresql_cluster: postgresql.Cluster) -> str:
    """A PostgreSQL database with our schema, to copy."""
    name = postgresql_cluster.create()
    schema.upgrade(postgresql_cluster.url(name))
    return name


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """The URL of a fresh SQLite file with our schema."""
    path = tmp_path / "hub.sqlite3"
    shutil.copy(sqlite_template, path)
    return f"sqlite:///{path}"


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a fresh database with our schema, once for each kind of database."""
    if request.param == "sqlite":
        yield request.getfixturevalue("sqlite_url")
        return
    cluster = request.getfixturevalue("postgresql_cluster")
    name = cluster.create(request.getfixturevalue("postgresql_template"))
    yield cluster.url(name)
    cluster.drop(name)


@pytest.fixture(params=DATABASES)
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database with nothing in it, once for each kind of database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.sqlite3'}"
        return
    cluster = request.getfixturevalue("postgresql_cluster")
    name = cluster.create()
    yield cluster.url(name)
    cluster.drop(name)
