"""Tokens over the API: shown once, listed without what proves them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostler_hub.web.api.schemas import system as schemas

if TYPE_CHECKING:
    import httpx2
    from hub.web.harness import Api

TOKENS = "/api/v1/tokens"


async def test_make_use_list_and_revoke(api: Api, admin: httpx2.AsyncClient) -> None:
    body = {"name": "ci", "role": "submitter", "expires_in_s": 3600}
    answer = await admin.post(TOKENS, json=body)
    assert answer.status_code == 201
    made = schemas.CreatedToken.model_validate(answer.json())
    client = api.client(made.token)
    assert (await client.get("/api/v1/whoami")).json() == {"name": "ci", "role": "submitter"}

    listing = await admin.get(TOKENS)
    items = {each.name: each for each in schemas.TokenList.model_validate(listing.json()).items}
    assert items["ci"].created_by == "a-admin"
    assert (items["ci"].created_at, items["ci"].expires_at) == (
        "2001-09-09T01:46:40.000Z",
        "2001-09-09T02:46:40.000Z",
    )
    assert made.token not in listing.text
    assert made.token[17:] not in listing.text

    assert (await admin.delete(f"{TOKENS}/ci")).status_code == 204
    assert (await client.get("/api/v1/whoami")).status_code == 401
    assert (await admin.delete(f"{TOKENS}/ci")).status_code == 404


async def test_what_a_token_may_not_be(admin: httpx2.AsyncClient) -> None:
    good = {"name": "ci", "role": "viewer"}
    assert (await admin.post(TOKENS, json=good)).status_code == 201
    for bad, status, pointer in (
        (good, 409, "/name"),
        ({**good, "name": "a b"}, 422, "/name"),
        ({**good, "name": "admin"}, 422, "/name"),
        ({**good, "name": "x", "role": "agent"}, 422, "/role"),
        ({**good, "name": "x", "expires_in_s": 0}, 422, "/expires_in_s"),
        ({**good, "name": "x", "expires_in_s": 90 * 86400 + 1}, 422, "/expires_in_s"),
    ):
        answer = await admin.post(TOKENS, json=bad)
        assert (answer.status_code, answer.json()["pointer"]) == (status, pointer), bad


async def test_a_token_lives_90_days_unless_told_otherwise(admin: httpx2.AsyncClient) -> None:
    await admin.post(TOKENS, json={"name": "ci", "role": "viewer"})
    items = (await admin.get(TOKENS)).json()["items"]
    expires = {each["name"]: each["expires_at"] for each in items}
    assert expires["ci"] == "2001-12-08T01:46:40.000Z"
