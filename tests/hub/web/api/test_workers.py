"""The workers' routes: what they pass on, what they answer, and how fast."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hostler_hub.web.api.schemas import workers as schemas

if TYPE_CHECKING:
    import httpx2
    from conftest import Api

WORKERS = "/api/v1/workers"
WEB = {"name": "web-1", "driver": "local", "labels": ["linux"], "properties": {"cores": 4}}


async def define(client: httpx2.AsyncClient, *workers: dict[str, object]) -> None:
    answer = await client.post(f"{WORKERS}/define", json={"workers": list(workers)})
    assert answer.status_code == 200


async def test_define_passes_on_and_never_shows_the_password(
    api: Api, operator: httpx2.AsyncClient
) -> None:
    worker = {**WEB, "driver": "permanent", "password": "hunter22"}
    body = {"workers": [worker], "dry_run": True}
    answer = await operator.post(f"{WORKERS}/define", json=body)
    results = schemas.DefineResults.model_validate(answer.json())
    assert results.results[0].created
    assert results.results[0].after.has_password
    assert "hunter22" not in answer.text
    assert api.fleet.calls == [("define", {"by": "a-operator", "dry_run": True})]
    assert api.fleet.workers == {}


async def test_one_bad_definition_reaches_nobody(api: Api, operator: httpx2.AsyncClient) -> None:
    body = {"workers": [WEB, {**WEB, "max_builds": "yes"}]}
    answer = await operator.post(f"{WORKERS}/define", json=body)
    assert answer.status_code == 422
    assert answer.json()["pointer"] == "/workers/1/max_builds"
    assert api.fleet.calls == []


async def test_look_up_one_and_many(operator: httpx2.AsyncClient) -> None:
    await define(operator, WEB, {**WEB, "name": "web-2"})
    one = await operator.get(f"{WORKERS}/web-1")
    assert schemas.WorkerView.model_validate(one.json()).labels == ["linux"]
    assert (await operator.get(f"{WORKERS}/web-3")).status_code == 404
    names = ["web-2", "nobody", "Not A Name"]
    many = await operator.post(f"{WORKERS}/query", json={"names": names})
    found = schemas.WorkerLookup.model_validate(many.json())
    assert [each.name for each in found.items] == ["web-2"]
    assert found.unknown == ["nobody", "Not A Name"]
    events = await operator.get(f"{WORKERS}/web-1/events?limit=1")
    assert schemas.EventList.model_validate(events.json()).items[0].from_ == "latent"


async def test_pages_follow_each_other(operator: httpx2.AsyncClient) -> None:
    await define(operator, *({**WEB, "name": f"w-{n}"} for n in range(5)))
    seen: list[str] = []
    after = ""
    while True:
        answer = await operator.get(f"{WORKERS}?limit=2{after}")
        page = schemas.WorkerPage.model_validate(answer.json())
        seen += [each.name for each in page.items]
        if page.next is None:
            break
        after = f"&after={page.next}"
    assert seen == [f"w-{n}" for n in range(5)]


async def test_filters_are_passed_on(api: Api, operator: httpx2.AsyncClient) -> None:
    query = "name=a&name=b&state=latent&mode=paused&driver=fake&label=x&missing=true"
    assert (await operator.get(f"{WORKERS}?{query}")).status_code == 200
    assert api.fleet.calls[-1] == (
        "page",
        {
            "names": ["a", "b"],
            "state": "latent",
            "mode": "paused",
            "driver": "fake",
            "label": "x",
            "missing": True,
        },
    )


async def test_mode_notes_who_and_why(api: Api, operator: httpx2.AsyncClient) -> None:
    await define(operator, WEB)
    body = {"names": ["web-1"], "mode": "paused", "reason": "disk swap"}
    answer = await operator.post(f"{WORKERS}/mode", json=body)
    results = schemas.ModeResults.model_validate(answer.json()).results
    assert (results[0].before.mode, results[0].after.mode) == ("active", "paused")
    assert results[0].changed
    expected = {"by": "a-operator", "dry_run": False, "reason": "disk swap", "until": None}
    assert api.fleet.calls[-1] == ("set_mode", expected)
    body["mode"] = "asleep"
    assert (await operator.post(f"{WORKERS}/mode", json=body)).status_code == 422


@pytest.mark.parametrize("verb", ["substantiate", "insubstantiate"])
async def test_instances_on_demand(api: Api, operator: httpx2.AsyncClient, verb: str) -> None:
    body = {"names": ["web-1"], "dry_run": True}
    answer = await operator.post(f"{WORKERS}/{verb}", json=body)
    assert schemas.StateResults.model_validate(answer.json()).results[0].name == "web-1"
    assert api.fleet.calls[-1] == (verb, {"by": "a-operator", "dry_run": True})


async def test_remove_many_and_one(api: Api, operator: httpx2.AsyncClient) -> None:
    await define(operator, WEB, {**WEB, "name": "busy"})
    api.fleet.workers["busy"]["builds"] = ["01K8Z9Q8Y3N6V4T2R0P9M7K5J3"]
    refused = await operator.delete(f"{WORKERS}/busy")
    assert refused.status_code == 409
    assert refused.json()["pointer"] == "/names/0"
    forced = await operator.delete(f"{WORKERS}/busy?force=true")
    assert schemas.RemoveResult.model_validate(forced.json()).state == "absent"
    answer = await operator.post(f"{WORKERS}/remove", json={"names": ["web-1"]})
    assert schemas.RemoveResults.model_validate(answer.json()).results[0].name == "web-1"
    assert api.fleet.workers == {}


async def test_names_are_checked_where_they_change_something(operator: httpx2.AsyncClient) -> None:
    answer = await operator.post(f"{WORKERS}/remove", json={"names": ["a", "../etc"]})
    assert answer.status_code == 422
    assert answer.json()["pointer"] == "/names/1"


async def test_a_thousand_workers_go_in_one_request(operator: httpx2.AsyncClient) -> None:
    names = [f"w-{n:04d}" for n in range(1000)]
    await define(operator, *({**WEB, "name": name} for name in names))
    listed = await operator.post(f"{WORKERS}/query", json={"names": names})
    paused = await operator.post(f"{WORKERS}/mode", json={"names": names, "mode": "paused"})
    assert len(listed.json()["items"]) == len(paused.json()["results"]) == 1000


async def test_a_mode_s_end_is_an_instant_or_a_time_from_now(
    api: Api, operator: httpx2.AsyncClient
) -> None:
    await define(operator, WEB)
    body = {"names": ["web-1"], "mode": "paused"}
    instant = {**body, "until": "2026-01-02T05:04:05+02:00"}
    assert (await operator.post(f"{WORKERS}/mode", json=instant)).is_success
    assert api.fleet.calls[-1][1]["until"] == 1767323045
    assert (await operator.post(f"{WORKERS}/mode", json={**body, "for_s": 90})).is_success
    assert api.fleet.calls[-1][1]["until"] == api.hub.clock.now() + 90
    for wrong in ({"until": "2026-01-02T05:04:05"}, {"until": "soon"}, {"for_s": 0}):
        refused = await operator.post(f"{WORKERS}/mode", json={**body, **wrong})
        assert refused.status_code == 422
        assert refused.json()["pointer"] == f"/{next(iter(wrong))}"
    both = {**instant, "for_s": 90}
    assert (await operator.post(f"{WORKERS}/mode", json=both)).status_code == 422


@pytest.mark.parametrize("path", ["mode", "substantiate", "insubstantiate", "remove", "query"])
async def test_an_order_takes_names_or_a_selection(
    api: Api, operator: httpx2.AsyncClient, path: str
) -> None:
    await define(operator, WEB, {**WEB, "name": "web-2"})
    rest = {"mode": "paused"} if path == "mode" else {}
    select = {"labels": ["linux"], "state": "latent", "missing": False}
    answer = await operator.post(f"{WORKERS}/{path}", json={"select": select, **rest})
    assert answer.is_success, answer.text
    told = answer.json()["items" if path == "query" else "results"]
    assert [each["name"] for each in told] == ["web-1", "web-2"]
    chosen = next(call for call in api.fleet.calls if call[0] == "choose")
    assert chosen[1] == {"labels": ["linux"], "state": ["latent"], "missing": False}
    for wrong in ({}, {"names": ["web-1"], "select": select}, {"select": {}}):
        refused = await operator.post(f"{WORKERS}/{path}", json={**wrong, **rest})
        assert refused.status_code == 422, wrong
