"""Breakers by REST and on the page: which starts are paused, and orders to try again."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from hostler_hub.specs.caller import Role
from hostler_hub.web.api.schemas import groups as schemas

if TYPE_CHECKING:
    import httpx2
    from hub.web.harness import Api

BREAKERS = "/api/v1/breakers"
REGION = "region r"
NAMES = [f"w{number}" for number in range(5)]


async def listed(client: httpx2.AsyncClient) -> list[schemas.OpenBreakerView]:
    answer = await client.get(BREAKERS)
    return schemas.OpenBreakerList.model_validate(answer.json()).items


@pytest.fixture
async def paused(api: Api, operator: httpx2.AsyncClient) -> schemas.OpenBreakerView:
    """The breaker of a region in which five starts have failed."""
    options = {"region": "r", "create": "fail"}
    workers = [{"name": name, "driver": "fake", "driver_options": options} for name in NAMES]
    assert (await operator.post("/api/v1/workers/define", json={"workers": workers})).is_success
    body = {"names": NAMES}
    assert (await operator.post("/api/v1/workers/substantiate", json=body)).is_success
    await api.settle()
    (shown,) = await listed(operator)
    return shown


async def test_what_is_paused_is_listed_with_its_workers_and_what_to_do(
    operator: httpx2.AsyncClient, paused: schemas.OpenBreakerView
) -> None:
    assert (paused.domain, paused.state, paused.failures) == (REGION, "open", 5)
    assert (paused.workers, paused.workers_count) == (NAMES, 5)
    assert paused.text.startswith(f"starts on {REGION} are paused until ")
    assert paused.remedy
    decided = (await operator.get("/api/v1/decisions", params={"kind": "breaker"})).json()["items"]
    assert [(each["rule"], each["group"]) for each in decided] == [("opened", REGION)]


async def test_an_order_closes_it_once(
    operator: httpx2.AsyncClient, paused: schemas.OpenBreakerView
) -> None:
    for changed in (True, False):
        answer = await operator.post(f"{BREAKERS}/close", json={"domains": [paused.domain]})
        results = schemas.CloseBreakerResults.model_validate(answer.json()).results
        assert [(each.domain, each.changed) for each in results] == [(REGION, changed)]
        assert await listed(operator) == []


async def test_resuming_one_worker_of_it_is_a_change_and_closes_it(
    operator: httpx2.AsyncClient, paused: schemas.OpenBreakerView
) -> None:
    assert paused.state == "open"
    extra = [{"name": "idle", "driver": "fake", "driver_options": {"region": "r"}}]
    await operator.post("/api/v1/workers/define", json={"workers": extra})
    for changed in (True, False):
        body = {"names": ["idle"], "mode": "active"}
        (result,) = (await operator.post("/api/v1/workers/mode", json=body)).json()["results"]
        assert result["changed"] is changed
        assert await listed(operator) == []


async def test_the_page_says_so_and_lets_operators_try_again(
    api: Api, paused: schemas.OpenBreakerView
) -> None:
    browser, ours = api.client(), {"origin": "http://hub.example"}
    form = {"token": await api.token(Role.OPERATOR)}
    await browser.post("/login", data=form, headers=ours)
    page = (await browser.get("/")).text
    assert f"Starts on {REGION} are paused until " in page
    assert paused.remedy in page
    csrf = re.search(r'name="csrf" value="([^"]+)"', page)
    assert csrf is not None
    form = {"csrf": csrf[1], "domain": paused.domain}
    answer = await browser.post("/breakers/close", data=form, headers=ours)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert "are paused until" not in (await browser.get("/")).text
