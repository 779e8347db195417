"""API tokens and single values."""

from __future__ import annotations

import pytest

from hostler_hub.store import meta, tokens
from hostler_hub.store.errors import RowRefused


def token(name, lookup):
    row = {"name": name, "role": "viewer", "lookup": lookup, "token_hash": "h"}
    return row | {"created_by": "me", "created_at": 1.0, "expires_at": None}


async def test_tokens_are_found_by_lookup_until_deleted(store):
    await store.write(tokens.insert, token("b", "2"))
    await store.write(tokens.insert, token("a", "1"))
    assert dict(await store.read(tokens.by_lookup, "2")) == token("b", "2")
    assert [row["name"] for row in await store.read(tokens.list_all)] == ["a", "b"]
    assert await store.write(tokens.delete, "b")
    assert not await store.write(tokens.delete, "b")
    assert await store.read(tokens.by_lookup, "2") is None


@pytest.mark.parametrize("clash", [("a", "2"), ("b", "1")], ids=["name", "lookup"])
async def test_taken_name_or_lookup_is_refused(store, clash):
    await store.write(tokens.insert, token("a", "1"))
    with pytest.raises(RowRefused):
        await store.write(tokens.insert, token(*clash))


async def test_values_are_set_and_replaced(store):
    assert await store.read(meta.get, "hub") is None
    for value in ("one", "two"):
        await store.write(meta.put, "hub", value)
        assert await store.read(meta.get, "hub") == value
