"""Leases of people over REST, from the request to the row: whose they are and how they end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from hub.web.harness import api_on

from hostler_hub.specs.caller import Role
from hostler_hub.web.api.schemas import leases as schemas
from hostler_hub.web.api.schemas.workers import WorkerView

if TYPE_CHECKING:
    import httpx2
    from conftest import AsRole
    from hub.web.harness import Api, Site

LEASES = "/api/v1/leases"
WORKERS = "/api/v1/workers"


@pytest.fixture
async def ann(as_role: AsRole) -> httpx2.AsyncClient:
    """May submit builds, so may lease; her token is called a-submitter."""
    return await as_role(Role.SUBMITTER)


@pytest.fixture
async def worker(operator: httpx2.AsyncClient) -> str:
    workers = [{"name": "w", "driver": "fake"}]
    assert (await operator.post(f"{WORKERS}/define", json={"workers": workers})).is_success
    return "w"


async def ask(client: httpx2.AsyncClient, status: int = 200, **terms: Any) -> Any:
    answer = await client.post(LEASES, json={"worker": "w", "wait_s": 60, **terms})
    assert answer.status_code == status, answer.text
    if status == 200:
        schemas.LeaseResult.model_validate(answer.json())
    return answer.json()


async def life(client: httpx2.AsyncClient) -> WorkerView:
    """The worker as REST shows it."""
    return WorkerView.model_validate((await client.get(f"{WORKERS}/w")).json())


async def set_mode(client: httpx2.AsyncClient, mode: str, reason: str) -> None:
    body = {"names": ["w"], "mode": mode, "reason": reason}
    assert (await client.post(f"{WORKERS}/mode", json=body)).is_success


async def order(client: httpx2.AsyncClient, lease: str, verb: str, **body: Any) -> Any:
    return await client.post(f"{LEASES}/{lease}/{verb}", json=body)


async def have(api: Api, client: httpx2.AsyncClient, **terms: Any) -> str:
    """A lease that is held; its id."""
    lease: str = (await ask(client, **terms))["lease"]["id"]
    await api.attach("w")
    return lease


async def test_a_latent_worker_is_started_and_told_of_when_it_is_there(
    api: Api, ann: httpx2.AsyncClient, worker: str
) -> None:
    asked = await ask(ann, reason="debugging", ttl_s=600)
    lease = asked["lease"]
    assert (asked["changed"], lease["state"], lease["why"]) == (True, "waiting", "it is latent")
    waiting = asyncio.create_task(ann.get(f"{LEASES}/{lease['id']}?wait_s=60"))
    await api.attach(worker)
    got = schemas.LeaseView.model_validate((await waiting).json())
    assert (got.state, got.holder, got.reason) == ("held", "a-submitter", "debugging")
    assert got.connection is not None
    (instance,) = api.site.provider.instances.values()
    assert got.connection.instance == instance.instance == (await life(ann)).instance
    assert got.connection.handle == instance.handle()
    listed = schemas.LeaseList.model_validate((await ann.get(LEASES)).json())
    assert [each.id for each in listed.items] == [lease["id"]]


async def test_asking_again_is_no_change_and_a_dry_run_none_either(
    api: Api, ann: httpx2.AsyncClient, worker: str
) -> None:
    assert await ask(ann, dry_run=True) == {"changed": True, "lease": None}
    assert (await life(ann)).lease is None
    first = await have(api, ann)
    again = await ask(ann, wait_s=0)
    assert (again["changed"], again["lease"]["id"]) == (False, first)


async def test_V5_another_person_is_told_who_has_it(
    api: Api, ann: httpx2.AsyncClient, operator: httpx2.AsyncClient, worker: str
) -> None:
    await have(api, ann, reason="debugging")
    refused = await ask(operator, status=409)
    assert "worker w cannot be leased: it is leased by a-submitter until" in refused["detail"]
    assert refused["detail"].endswith("UTC: debugging")


async def test_without_a_wait_only_what_is_free_is_given(
    api: Api, ann: httpx2.AsyncClient, worker: str
) -> None:
    refused = await ask(ann, status=409, wait_s=0)
    assert refused["detail"] == "worker w cannot be leased at once: it is latent"
    assert (await life(ann)).lease is None
    assert (await ask(ann, status=404, worker="nobody"))["detail"] == "there is no worker nobody"


async def test_V11_a_paused_worker_is_nobody_s(
    ann: httpx2.AsyncClient, operator: httpx2.AsyncClient, worker: str
) -> None:
    await set_mode(operator, "paused", "lunch")
    assert "it is paused: lunch" in (await ask(ann, status=409))["detail"]


async def test_only_its_holder_and_operators_renew_and_release(
    api: Api, as_role: AsRole, operator: httpx2.AsyncClient, worker: str
) -> None:
    dora = api.client(await api.hub.tokens.create("dora", Role.SUBMITTER, by="test"))
    lease = await have(api, dora)
    ann = await as_role(Role.SUBMITTER)
    for verb in ("renew", "release"):
        refused = await order(ann, lease, verb)
        assert refused.status_code == 403
        assert f"lease {lease} is dora's" in refused.json()["detail"]
    assert (await order(operator, lease, "renew", ttl_s=7200)).status_code == 200
    forgot = await order(operator, lease, "release")
    assert (forgot.status_code, "force" in forgot.json()["detail"]) == (409, True)
    ended = (await order(operator, lease, "release", force=True)).json()["lease"]
    assert (ended["state"], ended["end_reason"]) == ("ended", "ended by a-operator")


async def test_renewed_it_lasts_longer_and_then_expires_by_itself(
    api: Api, ann: httpx2.AsyncClient, worker: str
) -> None:
    lease = await have(api, ann, ttl_s=100)
    await api.pass_time(90)
    renewed = (await order(ann, lease, "renew", reason="still at it")).json()["lease"]
    assert (renewed["ttl_s"], renewed["reason"]) == (100, "still at it")
    await api.pass_time(90)
    assert (await ann.get(f"{LEASES}/{lease}")).json()["state"] == "held"
    await api.pass_time(11)
    over = schemas.LeaseView.model_validate((await ann.get(f"{LEASES}/{lease}")).json())
    assert (over.state, over.end_reason) == ("ended", "expired")
    late = await order(ann, lease, "renew")
    assert late.status_code == 409
    assert late.json()["detail"].endswith("expired")


async def test_released_twice_is_released_and_the_instance_is_replaced(
    api: Api, ann: httpx2.AsyncClient, worker: str
) -> None:
    lease = await have(api, ann)
    dry = (await order(ann, lease, "release", dry_run=True)).json()
    assert (dry["changed"], dry["lease"]["state"]) == (True, "held")
    first = (await order(ann, lease, "release")).json()
    again = (await order(ann, lease, "release")).json()
    assert (first["changed"], again["changed"]) == (True, False)
    assert first["lease"] == again["lease"]
    assert first["lease"]["end_reason"] == "released"
    await api.pass_time(0)
    assert (await life(ann)).state == "latent"
    assert api.site.provider.instances == {}
    past = (await ann.get(f"{LEASES}?ended=true&worker=w")).json()["items"]
    assert [each["id"] for each in past] == [lease]
    assert (await ann.get(LEASES)).json()["items"] == []


async def test_kept_the_instance_is_the_builds_again(
    api: Api, ann: httpx2.AsyncClient, worker: str
) -> None:
    lease = await have(api, ann)
    assert (await order(ann, lease, "release", keep=True)).is_success
    view = await life(ann)
    assert (view.state, view.lease) == ("substantiated", None)
    assert len(api.site.provider.instances) == 1


async def test_an_order_to_stop_ends_it_and_the_record_says_so(
    api: Api, ann: httpx2.AsyncClient, operator: httpx2.AsyncClient, worker: str
) -> None:
    lease = await have(api, ann)
    await set_mode(operator, "stopped", "fire")
    view = (await ann.get(f"{LEASES}/{lease}")).json()
    assert (view["state"], view["end_reason"]) == ("ended", "stopped by a-operator: fire")


async def test_a_new_hub_knows_the_leases_that_last_and_those_that_are_over(site: Site) -> None:
    """What the database says is all that is taken up."""
    define = {"workers": [{"name": "w", "driver": "fake"}]}
    async with api_on(site) as api:
        operator = api.client(await api.token(Role.OPERATOR))
        assert (await operator.post(f"{WORKERS}/define", json=define)).is_success
        over = await have(api, operator)
        assert (await order(operator, over, "release", keep=True)).is_success
        lease = (await ask(operator, reason="debugging"))["lease"]
        assert lease["state"] == "held"
    async with api_on(site) as api:
        operator = api.client(await api.token(Role.OPERATOR))
        again = schemas.LeaseView.model_validate(
            (await operator.get(f"{LEASES}/{lease['id']}")).json()
        )
        assert (again.state, again.holder, again.reason) == ("held", "a-operator", "debugging")
        assert again.until == lease["until"]
        past = schemas.LeaseView.model_validate((await operator.get(f"{LEASES}/{over}")).json())
        assert (past.state, past.end_reason) == ("ended", "released")
        held = (await ask(operator))["lease"]  # it is his still
        assert held["id"] == lease["id"]


@pytest.mark.parametrize(
    ("terms", "pointer"),
    [
        ({"ttl_s": 0}, "/ttl_s"),
        ({"wait_s": -1}, "/wait_s"),
        ({"reason": ""}, "/reason"),
        ({"keep": "yes"}, "/keep"),
        ({"holder": "bob"}, "/holder"),
    ],
)
async def test_bad_terms_are_refused_where_they_are(
    ann: httpx2.AsyncClient, terms: dict[str, Any], pointer: str
) -> None:
    assert (await ask(ann, status=422, **terms))["pointer"] == pointer
