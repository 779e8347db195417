"""Any path can be a database's, and is the same after it was a URL."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler_hub.runtime import database_url
from hostler_hub.runtime.settings import Settings
from hostler_hub.store import schema
from hostler_hub.store.engine import Store

NAMES = [
    "with space",
    "a:b@2",
    "w#h",
    "50% done",
    "groß",
    "feature%2Flogin",
    "%41",
    "is it?",
    "a&b=c",
]


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
def test_a_path_comes_back_as_it_was(name: str) -> None:
    path = Path("/srv", name)
    assert database_url.file_of(database_url.of_file(path)) == path


@pytest.mark.parametrize(
    "url", ["sqlite://", "sqlite:///", "sqlite:///:memory:", "postgresql://h/d"]
)
def test_what_names_no_file(url: str) -> None:
    assert database_url.file_of(url) is None


@pytest.mark.parametrize("name", NAMES)
async def test_the_database_lies_in_the_state_directory(tmp_path: Path, name: str) -> None:
    directory = tmp_path / name / "state"
    directory.mkdir(parents=True)
    settings = Settings(state_dir=directory)
    again = Settings(state_dir=tmp_path, database_url=settings.database_url)  # as a child has it
    assert again.database_url == settings.database_url
    async with Store(settings.database_url, exclusive=True) as store:
        assert await store.read(lambda c: c.exec_driver_sql("SELECT 1").scalar()) == 1
    assert [path.name for path in tmp_path.iterdir()] == [name]
    schema.upgrade(settings.database_url)
    with sqlite3.connect(directory / "hub.sqlite3") as connection:
        assert connection.execute("SELECT count(*) FROM workers").fetchone() == (0,)
    connection.close()
