"""The routes that look for what leaked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostler_hub.drivers.fake.driver import FakeInstance
from hostler_hub.web.api.schemas import reconcile as schemas

if TYPE_CHECKING:
    import httpx2
    from hub.web.harness import Api

WORKERS = "/api/v1/workers"
STRAY = "01K8Z9Q8Y3N6V4T2R0P9M7K5J3"


async def test_a_pass_tells_what_it_found(api: Api, operator: httpx2.AsyncClient) -> None:
    api.site.provider.instances[STRAY] = FakeInstance("w", STRAY, 1)
    answer = await operator.post("/api/v1/reconcile", json={"dry_run": True, "confirmed": True})
    told = schemas.Reconciliation.model_validate(answer.json())
    assert (told.findings[0].kind, told.findings[0].action) == ("unknown", "destroy")
    assert not told.findings[0].done
    assert told.checked == [schemas.CheckedView(driver="fake", listed=1, expected=0, spares=0)]
    answer = await operator.post("/api/v1/reconcile", json={"drivers": ["fake"]})
    assert schemas.Reconciliation.model_validate(answer.json()).findings[0].action == "hold"
    answer = await operator.post("/api/v1/reconcile", json={"confirmed": True})
    assert schemas.Reconciliation.model_validate(answer.json()).findings[0].done
    assert api.site.provider.instances == {}


async def test_a_provider_that_is_silent_is_named(api: Api, operator: httpx2.AsyncClient) -> None:
    api.site.provider.mute = True
    answer = await operator.post("/api/v1/reconcile", json={})
    told = schemas.Reconciliation.model_validate(answer.json())
    assert told.unanswered[0].driver == "fake"
    assert "does not answer" in told.unanswered[0].reason


async def test_an_unknown_driver_is_refused_with_the_known_ones(
    operator: httpx2.AsyncClient,
) -> None:
    answer = await operator.post("/api/v1/reconcile", json={"drivers": ["fake", "moon"]})
    assert (answer.status_code, answer.json()["pointer"]) == (422, "/drivers/1")
    assert "there are fake" in answer.json()["detail"]


async def test_forgetting_needs_a_reason_and_a_confirmation(operator: httpx2.AsyncClient) -> None:
    for body in (
        {"names": ["w"], "confirmed": True},
        {"names": ["w"], "reason": "sold"},
        {"names": ["w"], "reason": "sold", "confirmed": False},
    ):
        answer = await operator.post("/api/v1/workers/forget", json=body)
        assert answer.status_code == 422
    body = {"names": ["w"], "reason": "sold", "confirmed": True}
    assert (await operator.post("/api/v1/workers/forget", json=body)).status_code == 404


async def test_only_what_cannot_be_stopped_is_forgotten(
    api: Api, operator: httpx2.AsyncClient
) -> None:
    stuck = {"name": "w", "driver": "fake", "driver_options": {"destroy": "fail"}}
    await operator.post(f"{WORKERS}/define", json={"workers": [stuck]})
    await operator.post(f"{WORKERS}/substantiate", json={"names": ["w"]})
    await api.settle()
    body = {"names": ["w"], "reason": "sold", "confirmed": True}
    refused = await operator.post(f"{WORKERS}/forget", json=body)
    assert refused.status_code == 409
    assert "can still be stopped the usual way" in refused.json()["detail"]
    await operator.post(f"{WORKERS}/insubstantiate", json={"names": ["w"]})
    await api.settle()
    for dry_run, state in ((True, "insubstantiating"), (False, "latent")):
        answer = await operator.post(f"{WORKERS}/forget", json={**body, "dry_run": dry_run})
        assert schemas.ForgetResults.model_validate(answer.json()).results[0].changed
        assert (await operator.get(f"{WORKERS}/w")).json()["state"] == state
    (latest, *_) = (await operator.get(f"{WORKERS}/w/events")).json()["items"]
    assert latest["cause"] == "forgotten by a-operator: sold"


async def test_what_a_driver_said_of_a_failed_instance_is_kept(
    api: Api, operator: httpx2.AsyncClient
) -> None:
    failing = {"name": "w", "driver": "fake", "driver_options": {"create": "fail_done"}}
    await operator.post(f"{WORKERS}/define", json={"workers": [failing]})
    await operator.post(f"{WORKERS}/substantiate", json={"names": ["w"]})
    await api.settle()
    answer = await operator.get(f"{WORKERS}/w/evidence")
    (kept,) = schemas.EvidenceList.model_validate(answer.json()).items
    assert kept.texts == {"console": f"fake: last words of {kept.instance}\n"}
    assert "gateway timeout" in kept.why
    assert (await operator.get(f"{WORKERS}/nobody/evidence")).status_code == 404
