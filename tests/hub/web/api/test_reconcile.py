"""The routes that look for what leaked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostler_hub.drivers.fake.driver import FakeInstance
from hostler_hub.web.api.schemas import reconcile as schemas

if TYPE_CHECKING:
    import httpx2
    from hub.web.harness import Api

STRAY = "01K8Z9Q8Y3N6V4T2R0P9M7K5J3"


async def test_a_pass_tells_what_it_found(api: Api, operator: httpx2.AsyncClient) -> None:
    api.site.provider.instances[STRAY] = FakeInstance("w", STRAY, 1)
    answer = await operator.post("/api/v1/reconcile", json={"dry_run": True, "confirmed": True})
    told = schemas.Reconciliation.model_validate(answer.json())
    assert (told.findings[0].kind, told.findings[0].action) == ("unknown", "destroy")
    assert not told.findings[0].done
    assert told.checked == [schemas.Checked(driver="fake", listed=1, expected=0, spares=0)]
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
