"""The whole hub in one process: what its routes answer is what its document says they do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from hostler_hub.app import create_app
from hostler_hub.runtime import private_files
from hostler_hub.runtime.settings import Settings
from hostler_hub.web.api.schemas import builds as builds_schemas
from hostler_hub.web.api.schemas import system as system_schemas
from hostler_hub.web.api.schemas import workers as workers_schemas

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

WORKERS = "/api/v1/workers"
BUILDS = "/api/v1/builds"
WEB = {"name": "web-1", "driver": "fake", "labels": ["linux"], "description": "a fake"}
# Paused workers keep a build in the queue, so that nothing here depends on an agent.
SPEC = {"name": "b", "requires": {"labels": ["linux"]}, "steps": [{"name": "s", "command": ["x"]}]}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = Settings(state_dir=tmp_path / "hub", port=1)
    made.prepare_state_dir()
    return made


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[httpx2.AsyncClient]:
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        token = settings.admin_token_file.read_text().strip()
        async with httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=app),
            base_url="http://hub.example",
            headers={"Authorization": f"Bearer {token}"},
        ) as made:
            yield made


async def post(client: httpx2.AsyncClient, path: str, body: dict[str, Any]) -> Any:
    answer = await client.post(path, json=body)
    assert answer.is_success, answer.text
    return answer.json()


async def test_workers_answer_in_their_documented_shapes(client: httpx2.AsyncClient) -> None:
    made = await post(client, f"{WORKERS}/define", {"workers": [WEB]})
    assert workers_schemas.DefineResults.model_validate(made).results[0].created
    again = await post(client, f"{WORKERS}/define", {"workers": [WEB]})
    assert workers_schemas.DefineResults.model_validate(again).results[0].changed is False
    orders = {"names": ["web-1"], "mode": "paused", "reason": "test"}
    paused = await post(client, f"{WORKERS}/mode", orders)
    assert workers_schemas.ModeResults.model_validate(paused).results[0].changed
    view = workers_schemas.WorkerView.model_validate((await client.get(f"{WORKERS}/web-1")).json())
    assert (view.mode, view.mode_by, view.mode_reason) == ("paused", "admin", "test")
    page = workers_schemas.WorkerPage.model_validate((await client.get(WORKERS)).json())
    assert [each.name for each in page.items] == ["web-1"]
    found = await post(client, f"{WORKERS}/query", {"names": ["web-1", "x"]})
    assert workers_schemas.WorkerLookup.model_validate(found).unknown == ["x"]
    events = (await client.get(f"{WORKERS}/web-1/events")).json()
    assert workers_schemas.EventList.model_validate(events).items
    refused = await client.post(f"{WORKERS}/substantiate", json={"names": ["web-1"]})
    assert refused.status_code == 409
    assert "paused" in refused.json()["detail"]
    system_schemas.Status.model_validate((await client.get("/api/v1/status")).json())
    gone = (await client.delete(f"{WORKERS}/web-1")).json()
    assert workers_schemas.RemoveResult.model_validate(gone).state == "absent"


async def test_builds_answer_in_their_documented_shapes(client: httpx2.AsyncClient) -> None:
    hopeless = await client.post(BUILDS, json=SPEC)
    assert (hopeless.status_code, hopeless.json()["pointer"]) == (422, "/requires")
    await post(client, f"{WORKERS}/define", {"workers": [WEB]})
    await post(client, f"{WORKERS}/mode", {"names": ["web-1"], "mode": "paused"})
    view = builds_schemas.BuildView.model_validate(await post(client, BUILDS, SPEC))
    assert view.state == "queued"
    waiting = (await client.get(f"{BUILDS}/{view.id}")).json()
    assert builds_schemas.BuildView.model_validate(waiting).why_workers
    listed = builds_schemas.BuildPage.model_validate((await client.get(BUILDS)).json())
    assert [each.why for each in listed.items] == ["1 of 1 workers: it is paused"]
    cancelled = await post(client, f"{BUILDS}/{view.id}/cancel", {"reason": "enough"})
    assert builds_schemas.BuildView.model_validate(cancelled).state == "cancelled"
    again = await post(client, f"{BUILDS}/{view.id}/cancel", {"reason": "again"})  # A13
    assert again == cancelled
    for follow in ("false", "true"):
        answer = await client.get(f"{BUILDS}/{view.id}/steps/9/log?follow={follow}")
        assert answer.status_code == 404


async def test_a_thousand_workers_in_one_request(client: httpx2.AsyncClient) -> None:
    names = [f"w-{n:04d}" for n in range(1000)]
    await post(client, f"{WORKERS}/define", {"workers": [{**WEB, "name": n} for n in names]})
    listed = await post(client, f"{WORKERS}/query", {"names": names})
    paused = await post(client, f"{WORKERS}/mode", {"names": names, "mode": "paused"})
    assert len(listed["items"]) == 1000
    assert all(each["changed"] for each in paused["results"])


async def test_the_hub_is_the_same_after_a_restart_and_says_what_it_left(
    settings: Settings,
) -> None:
    seen = []
    for _ in range(2):
        app = create_app(settings)
        async with app.router.lifespan_context(app):
            hub = app.state.hub
            seen.append((hub.id, settings.admin_token_file.read_text()))
    assert seen[0] == seen[1]
    left = private_files.read_json(settings.stop_file)
    assert (left["instances"], left["unclosed"]) == ([], [])


async def test_a_selection_and_a_mode_s_end(client: httpx2.AsyncClient) -> None:
    others = {**WEB, "name": "db-1", "labels": ["db"]}
    await post(client, f"{WORKERS}/define", {"workers": [WEB, {**WEB, "name": "web-2"}, others]})
    order = {"select": {"labels": "linux"}, "mode": "paused", "for_s": 3600}
    dry = await post(client, f"{WORKERS}/mode", {**order, "dry_run": True})
    assert [each["changed"] for each in dry["results"]] == [True, True]
    assert (await client.get(f"{WORKERS}/web-1")).json()["mode"] == "active"
    done = workers_schemas.ModeResults.model_validate(await post(client, f"{WORKERS}/mode", order))
    assert [each.name for each in done.results] == ["web-1", "web-2"]
    until = done.results[0].after.until
    assert until is not None
    assert (await client.get(f"{WORKERS}/web-1")).json()["mode_until"] == until
    again = {"names": ["web-1"], "mode": "paused", "until": until}
    assert not (await post(client, f"{WORKERS}/mode", again))["results"][0]["changed"]
    for wrong in ({"until": "2001-01-01T00:00:00Z"}, {"until": "2999-01-01T00:00:00Z"}):
        refused = await client.post(f"{WORKERS}/mode", json={**again, **wrong})
        assert (refused.status_code, refused.json()["pointer"]) == (422, "/until")
    ends = {"names": ["web-1"], "mode": "active", "for_s": 1}
    assert (await client.post(f"{WORKERS}/mode", json=ends)).status_code == 422
    paused = await post(client, f"{WORKERS}/query", {"select": {"mode": "paused"}})
    assert [each["name"] for each in paused["items"]] == ["web-1", "web-2"]


async def test_permanent_workers_have_no_instances_to_replace(client: httpx2.AsyncClient) -> None:
    owned = {"name": "p", "driver": "permanent", "password": "x"}
    for limit in ("max_uses", "max_uptime"):
        body = {"workers": [{**owned, limit: 1}]}
        refused = await client.post(f"{WORKERS}/define", json=body)
        assert (refused.status_code, refused.json()["pointer"]) == (422, f"/workers/0/{limit}")


async def test_V14_a_password_by_reference_is_shown_kept_and_replaced(
    client: httpx2.AsyncClient, settings: Settings
) -> None:
    (settings.state_dir / "secrets").mkdir()
    (settings.state_dir / "secrets" / "p").write_text("s3cret\n")
    owned = {"name": "p", "driver": "permanent"}

    async def define(**more: Any) -> workers_schemas.DefineResult:
        made = await post(client, f"{WORKERS}/define", {"workers": [{**owned, **more}]})
        return workers_schemas.DefineResults.model_validate(made).results[0]

    assert (await define(password={"file": "p"})).after.password_ref == {"file": "p"}
    assert not (await define(password={"file": "p"})).changed
    kept = await define(description="x")
    assert (kept.after.password_ref, kept.after.has_password) == ({"file": "p"}, True)
    plain = await define(description="x", password="s3cret")
    assert (plain.after.password_ref, plain.after.has_password) == (None, True)
    lost = {"workers": [{**owned, "password": {"file": "none"}}]}
    refused = await client.post(f"{WORKERS}/define", json=lost)
    assert (refused.status_code, refused.json()["pointer"]) == (422, "/workers/0/password")
    assert "none" in refused.json()["detail"]
