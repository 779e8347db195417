"""The workers' routes, from the request to the worker as REST shows it afterwards."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import structlog

from hostler_hub.drivers.contract import Capabilities
from hostler_hub.web.api.schemas import workers as schemas

if TYPE_CHECKING:
    import httpx2
    from hub.web.harness import Api

WORKERS = "/api/v1/workers"
WEB = {"name": "web-1", "driver": "fake", "labels": ["linux"], "properties": {"cores": 4}}


async def define(client: httpx2.AsyncClient, *workers: dict[str, object]) -> None:
    answer = await client.post(f"{WORKERS}/define", json={"workers": list(workers)})
    assert answer.status_code == 200


async def view_of(client: httpx2.AsyncClient, name: str = "web-1") -> schemas.WorkerView:
    return schemas.WorkerView.model_validate((await client.get(f"{WORKERS}/{name}")).json())


async def causes(client: httpx2.AsyncClient, name: str = "web-1") -> list[str | None]:
    """Why the worker's state changed, latest first."""
    listed = await client.get(f"{WORKERS}/{name}/events")
    return [each.cause for each in schemas.EventList.model_validate(listed.json()).items]


async def names_in(client: httpx2.AsyncClient, query: str) -> list[str]:
    """The workers that a filter lets through."""
    answer = await client.get(f"{WORKERS}?{query}")
    return [each.name for each in schemas.WorkerPage.model_validate(answer.json()).items]


async def test_a_dry_definition_defines_nothing_and_never_shows_the_password(
    operator: httpx2.AsyncClient,
) -> None:
    worker = {**WEB, "driver": "permanent", "password": "hunter22"}
    for dry_run, status in ((True, 404), (False, 200)):
        body = {"workers": [worker], "dry_run": dry_run}
        answer = await operator.post(f"{WORKERS}/define", json=body)
        results = schemas.DefineResults.model_validate(answer.json())
        assert results.results[0].created
        assert results.results[0].after.has_password
        assert "hunter22" not in answer.text
        found = await operator.get(f"{WORKERS}/web-1")
        assert found.status_code == status
        assert "hunter22" not in found.text


async def test_the_log_says_who_defined_workers(operator: httpx2.AsyncClient) -> None:
    with structlog.testing.capture_logs() as logged:
        await define(operator, WEB)
    said = [each for each in logged if each["event"] == "workers defined"]
    assert [(each["by"], each["count"]) for each in said] == [("a-operator", 1)]


async def test_one_bad_definition_defines_none(operator: httpx2.AsyncClient) -> None:
    body = {"workers": [WEB, {**WEB, "name": "web-2", "max_builds": "yes"}]}
    answer = await operator.post(f"{WORKERS}/define", json=body)
    assert answer.status_code == 422
    assert answer.json()["pointer"] == "/workers/1/max_builds"
    assert await names_in(operator, "") == []


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


async def test_events_are_listed_latest_first(operator: httpx2.AsyncClient) -> None:
    await define(operator, WEB)
    for mode in ("paused", "draining"):
        await operator.post(f"{WORKERS}/mode", json={"names": ["web-1"], "mode": mode})
    listed = await operator.get(f"{WORKERS}/web-1/events")
    items = schemas.EventList.model_validate(listed.json()).items
    assert [(each.event, each.from_, each.to) for each in items] == [
        ("ModeSet", "latent", "latent")
    ] * 2
    latest = await operator.get(f"{WORKERS}/web-1/events?limit=1")
    assert latest.json()["items"] == listed.json()["items"][:1]
    assert (await operator.get(f"{WORKERS}/nobody/events")).status_code == 404


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


async def test_filters_choose_and_must_all_hold(api: Api, operator: httpx2.AsyncClient) -> None:
    await define(
        operator,
        {"name": "a", "driver": "fake", "labels": ["x", "y"]},
        {"name": "b", "driver": "fake", "labels": ["y"]},
        {"name": "c", "driver": "permanent", "password": "hunter22", "labels": ["x"]},
    )
    await operator.post(f"{WORKERS}/mode", json={"names": ["c"], "mode": "paused"})
    await operator.post(f"{WORKERS}/substantiate", json={"names": ["b"]})
    for query, expected in (
        ("name=a&name=c&name=nobody", ["a", "c"]),
        ("state=substantiating", ["b"]),
        ("mode=paused", ["c"]),
        ("driver=fake", ["a", "b"]),
        ("label=x", ["a", "c"]),
        ("missing=true", []),
        ("missing=false", ["a", "b", "c"]),
        ("label=x&driver=fake", ["a"]),
        ("name=a&mode=paused", []),
    ):
        assert await names_in(operator, query) == expected, query
    while not (await view_of(operator, "b")).missing:  # its agent never comes
        await api.pass_time(121)
    assert await names_in(operator, "missing=true") == ["b"]


async def test_mode_notes_who_and_why(operator: httpx2.AsyncClient) -> None:
    await define(operator, WEB)
    body = {"names": ["web-1"], "mode": "paused", "reason": "disk swap"}
    for dry_run, mode in ((True, "active"), (False, "paused")):
        answer = await operator.post(f"{WORKERS}/mode", json={**body, "dry_run": dry_run})
        results = schemas.ModeResults.model_validate(answer.json()).results
        assert (results[0].before.mode, results[0].after.mode) == ("active", "paused")
        assert results[0].changed
        assert (await view_of(operator)).mode == mode
    view = await view_of(operator)
    assert (view.mode_by, view.mode_reason, view.mode_until) == ("a-operator", "disk swap", None)
    body["mode"] = "asleep"
    assert (await operator.post(f"{WORKERS}/mode", json=body)).status_code == 422


async def test_instances_on_demand(api: Api, operator: httpx2.AsyncClient) -> None:
    await define(operator, WEB)
    for count, (verb, before, after) in enumerate(
        [
            ("substantiate", "latent", "substantiating"),
            ("insubstantiate", "substantiating", "latent"),
        ],
        start=1,
    ):
        for dry_run, state in ((True, before), (False, after)):
            body = {"names": ["web-1"], "dry_run": dry_run}
            answer = await operator.post(f"{WORKERS}/{verb}", json=body)
            result = schemas.StateResults.model_validate(answer.json()).results[0]
            assert (result.name, result.changed) == ("web-1", True)
            await api.settle()
            assert (await view_of(operator)).state == state
        assert (await causes(operator)).count("order by a-operator") == count
    assert [call for call, _ in api.site.provider.calls if call in {"create", "destroy"}] == [
        "create",
        "destroy",
    ]
    again = await operator.post(f"{WORKERS}/insubstantiate", json={"names": ["web-1"]})
    assert not schemas.StateResults.model_validate(again.json()).results[0].changed


async def test_remove_many_and_one(api: Api, operator: httpx2.AsyncClient) -> None:
    await define(operator, WEB, {**WEB, "name": "busy", "labels": ["busy"]})
    await operator.post(f"{WORKERS}/substantiate", json={"names": ["busy"]})
    agent = await api.attach("busy", completes=False)
    spec = {"requires": {"labels": ["busy"]}, "steps": [{"name": "s", "command": ["x"]}]}
    build = (await operator.post("/api/v1/builds", json=spec)).json()["id"]
    async with asyncio.timeout(60):
        await agent.was_started.wait()
    assert (await view_of(operator, "busy")).builds == [build]
    refused = await operator.delete(f"{WORKERS}/busy")
    assert refused.status_code == 409
    assert "busy runs a build" in refused.json()["detail"]
    body = {"names": ["web-1", "busy"], "dry_run": True, "force": True}
    dry = await operator.post(f"{WORKERS}/remove", json=body)
    assert [each["changed"] for each in dry.json()["results"]] == [True, True]
    assert await names_in(operator, "") == ["busy", "web-1"]
    forced = await operator.delete(f"{WORKERS}/busy?force=true")
    assert schemas.RemoveResult.model_validate(forced.json()).state == "removing"
    answer = await operator.post(f"{WORKERS}/remove", json={"names": ["web-1"]})
    result = schemas.RemoveResults.model_validate(answer.json()).results[0]
    assert (result.name, result.state) == ("web-1", "absent")
    await api.settle()
    assert await names_in(operator, "") == []
    await api.until(f"/builds/{build}", state="queued", worker=None)


async def test_names_are_checked_where_they_change_something(operator: httpx2.AsyncClient) -> None:
    answer = await operator.post(f"{WORKERS}/remove", json={"names": ["a", "../etc"]})
    assert answer.status_code == 422
    assert answer.json()["pointer"] == "/names/1"


async def test_a_mode_s_end_is_an_instant_or_a_time_from_now(
    operator: httpx2.AsyncClient,
) -> None:
    await define(operator, WEB)
    body = {"names": ["web-1"], "mode": "paused"}
    instant = {**body, "until": "2001-09-10T05:04:05+02:00"}
    assert (await operator.post(f"{WORKERS}/mode", json=instant)).is_success
    assert (await view_of(operator)).mode_until == "2001-09-10T03:04:05.000Z"
    assert (await operator.post(f"{WORKERS}/mode", json={**body, "for_s": 90})).is_success
    assert (await view_of(operator)).mode_until == "2001-09-09T01:48:10.000Z"
    for wrong in ({"until": "2001-09-10T05:04:05"}, {"until": "soon"}, {"for_s": 0}):
        refused = await operator.post(f"{WORKERS}/mode", json={**body, **wrong})
        assert refused.status_code == 422
        assert refused.json()["pointer"] == f"/{next(iter(wrong))}"
    both = {**instant, "for_s": 90}
    assert (await operator.post(f"{WORKERS}/mode", json=both)).status_code == 422


@pytest.mark.parametrize("path", ["mode", "substantiate", "insubstantiate", "remove", "query"])
async def test_an_order_takes_names_or_a_selection(operator: httpx2.AsyncClient, path: str) -> None:
    others = ({**WEB, "name": "db-1", "labels": ["db"]}, {**WEB, "name": "web-0"})
    await define(operator, WEB, {**WEB, "name": "web-2"}, *others)
    await operator.post(f"{WORKERS}/substantiate", json={"names": ["web-0"]})
    rest = {"mode": "paused"} if path == "mode" else {}
    select = {"labels": ["linux"], "state": "latent", "missing": False}
    answer = await operator.post(f"{WORKERS}/{path}", json={"select": select, **rest})
    assert answer.is_success, answer.text
    told = answer.json()["items" if path == "query" else "results"]
    assert [each["name"] for each in told] == ["web-1", "web-2"]
    for wrong in ({}, {"names": ["web-1"], "select": select}, {"select": {}}):
        refused = await operator.post(f"{WORKERS}/{path}", json={**wrong, **rest})
        assert refused.status_code == 422, wrong


@pytest.mark.parametrize("name", ["all", "ungrouped"])
async def test_names_of_ansible_s_own_groups_are_refused(
    operator: httpx2.AsyncClient, name: str
) -> None:
    wanted = {"workers": [{"name": "good", "driver": "fake"}, {"name": name, "driver": "fake"}]}
    answer = await operator.post("/api/v1/workers/define", json=wanted)
    assert answer.status_code == 422
    assert f"worker {name}: a group of Ansible's own has this name" in answer.text
    assert "/workers/1/name" in answer.text
    assert (await operator.get("/api/v1/workers")).json()["items"] == []


async def test_the_agent_is_told_who_builds_run_as_and_replaced_when_that_changes(
    api: Api, operator: httpx2.AsyncClient
) -> None:
    chosen = {"build_groups": ["docker"], "no_new_privileges": True}
    await define(operator, {**WEB, **chosen})
    await operator.post(f"{WORKERS}/substantiate", json={"names": ["web-1"]})
    await api.attach("web-1", facts={"isolation": "user"})
    assert api.site.provider.started["web-1"].agent_config == chosen
    shown = await view_of(operator)
    assert (shown.isolation, shown.definition.build_groups) == ("user", ("docker",))
    await define(operator, {**WEB, "run_as": "agent"})
    await api.settle()
    assert (await view_of(operator)).state == "latent"


async def test_a_permanent_worker_s_agent_is_told_by_its_owner_alone(
    operator: httpx2.AsyncClient,
) -> None:
    worker = {**WEB, "driver": "permanent", "run_as": "agent"}
    answer = await operator.post(f"{WORKERS}/define", json={"workers": [worker]})
    assert answer.status_code == 422
    assert answer.json()["pointer"] == "/workers/0/run_as"
    assert "the agent's own configuration" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("run_as", "is_root", "isolation", "exposes"),
    [
        ("build_user", True, None, False),
        ("build_user", False, None, True),
        ("agent", True, None, True),
        ("build_user", True, "none", True),
        ("build_user", True, "container", True),
        ("build_user", False, "user", False),
    ],
)
async def test_V20_people_are_warned_of_builds_that_run_as_the_hub_itself(
    api: Api,
    operator: httpx2.AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
    run_as: str,
    is_root: bool,
    isolation: str | None,
    exposes: bool,
) -> None:
    monkeypatch.setattr("hostler_hub.runtime.process.is_root", lambda: is_root)
    controller = api.hub.workers._controller
    await define(operator, {**WEB, "run_as": run_as})
    controller._registry.get("web-1").facts = {} if isolation is None else {"isolation": isolation}
    for on_hub in (False, True):
        capabilities = Capabilities(on_hub=on_hub)
        monkeypatch.setattr(type(controller._drivers["fake"]), "capabilities", capabilities)
        shown = (await view_of(operator)).exposes_hub
        counted = (await operator.get("/api/v1/status")).json()["workers"]["exposing_hub"]
        assert (shown, counted) == (on_hub and exposes, int(on_hub and exposes))
