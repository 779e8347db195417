"""Databases for the hub's tests: every test gets a fresh one, of each kind."""

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


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a fresh database with our schema, once for each kind of database."""
    if request.param == "sqlite":
        path = tmp_path / "hub.sqlite3"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite:///{path}"
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
