"""Incidents and deliveries over REST, on the real use cases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hostler_hub.runtime.ids import new_ulid
from hostler_hub.store import deliveries, incidents
from hostler_hub.web.api.schemas import incidents as incidents_schemas
from hostler_hub.web.api.schemas import system as system_schemas
from hostler_hub.workers.incidents import Recipient, delivery

if TYPE_CHECKING:
    import httpx2
    from hub.web.harness import Api

AT = 1_000_000_000.0


async def happen(api: Api, worker: str = "w", kind: str = "missing") -> str:
    row = {"id": new_ulid(), "worker": worker, "kind": kind, "instance": None, "opened_at": AT}
    row |= {"closed_at": None, "reason": "gone", "close_reason": None, "evidence": {"epoch": 3}}
    await api.hub.store.write(incidents.insert, row)
    to = Recipient("mail", "ann@example.org")
    await api.hub.store.write(deliveries.insert, [delivery("opened", to, AT, row["id"])])
    return str(row["id"])


async def set_delivery(api: Api, incident: str, **values: Any) -> str:
    (row,) = await api.hub.store.read(deliveries.page, incident=incident, limit=10)
    await api.hub.store.write(deliveries.update, row["id"], values)
    return str(row["id"])


async def test_incidents_are_listed_newest_first_by_what_is_asked_for(
    api: Api, operator: httpx2.AsyncClient
) -> None:
    first = await happen(api)
    second = await happen(api, "v", "stop_failed")
    answer = incidents_schemas.IncidentPage.model_validate(
        (await operator.get("/api/v1/incidents")).json()
    )
    assert [each.id for each in answer.items] == [second, first]
    await operator.post(f"/api/v1/incidents/{second}/close")
    for query, expected in [
        ("open=true", [first]),
        ("open=false", [second]),
        ("worker=v", [second]),
        ("kind=missing", [first]),
        (f"after={second}", [first]),
        ("limit=1", [second]),
    ]:
        page = (await operator.get(f"/api/v1/incidents?{query}")).json()
        assert [each["id"] for each in page["items"]] == expected, query
    assert (await operator.get("/api/v1/incidents?limit=1")).json()["next"] == second


async def test_V16_an_incident_shows_whether_people_know(
    api: Api, operator: httpx2.AsyncClient
) -> None:
    incident = await happen(api)
    for state in ("pending", "sent"):
        if state == "sent":
            await set_delivery(api, incident, state="sent", sent_at=AT + 5, message_id="M")
        answer = await operator.get(f"/api/v1/incidents/{incident}")
        view = incidents_schemas.IncidentDetail.model_validate(answer.json())
        assert view.notification == state
        assert [each.state for each in view.deliveries] == [state]
    failed = await happen(api, "v")
    await set_delivery(api, failed, state="failed", last_error="550")
    listed = (await operator.get("/api/v1/incidents")).json()["items"]
    assert [each["notification"] for each in listed] == ["failed", "sent"]
    status = system_schemas.Status.model_validate((await operator.get("/api/v1/status")).json())
    assert (status.incidents.open, status.incidents.undelivered) == (2, 1)


async def test_a_person_may_close_an_incident_and_who_was_told_is_told(
    api: Api, operator: httpx2.AsyncClient
) -> None:
    incident = await happen(api)
    await set_delivery(api, incident, state="sent", sent_at=AT + 5, message_id="M")
    answer = await operator.post(f"/api/v1/incidents/{incident}/close", json={"reason": "false"})
    view = incidents_schemas.IncidentDetail.model_validate(answer.json())
    assert view.close_reason == "closed by a-operator: false"
    assert [each.about for each in view.deliveries] == ["closed", "opened"]
    again = await operator.post(f"/api/v1/incidents/{incident}/close", json={"reason": "other"})
    assert again.json()["close_reason"] == "closed by a-operator: false"
    assert len(again.json()["deliveries"]) == 2


async def test_a_delivery_that_was_given_up_is_tried_again_on_demand(
    api: Api, operator: httpx2.AsyncClient
) -> None:
    incident = await happen(api)
    id = await set_delivery(api, incident, state="failed", last_error="550")  # noqa: A001
    failed = (await operator.get("/api/v1/deliveries?state=failed")).json()
    assert [each["id"] for each in failed["items"]] == [id]
    answer = await operator.post(f"/api/v1/deliveries/{id}/retry")
    view = incidents_schemas.DeliveryView.model_validate(answer.json())
    assert (view.state, view.last_error) == ("pending", "550")
    await set_delivery(api, incident, state="sent", sent_at=AT)
    assert (await operator.post(f"/api/v1/deliveries/{id}/retry")).status_code == 409


async def test_a_test_goes_to_everybody_in_the_settings(
    api: Api, operator: httpx2.AsyncClient
) -> None:
    answer = await operator.post("/api/v1/notifications/test")
    made = incidents_schemas.DeliveryList.model_validate(answer.json())
    assert [(each.about, each.recipient) for each in made.items] == [("test", "ops@example.org")]
    stored = (await operator.get(f"/api/v1/deliveries/{made.items[0].id}")).json()
    assert stored["state"] == "pending"


async def test_what_is_not_there_is_404(operator: httpx2.AsyncClient) -> None:
    nothing = new_ulid()
    for path in (f"incidents/{nothing}", f"deliveries/{nothing}", "incidents/x"):
        assert (await operator.get(f"/api/v1/{path}")).status_code == 404
    for path in (f"incidents/{nothing}/close", f"deliveries/{nothing}/retry"):
        assert (await operator.post(f"/api/v1/{path}")).status_code == 404


async def test_V16_what_was_tried_is_added_and_told_once_to_those_who_know(
    api: Api, operator: httpx2.AsyncClient
) -> None:
    incident = await happen(api)
    await set_delivery(api, incident, state="sent", sent_at=AT, message_id="m1")
    body = {"evidence": {"tried": "ping: the machine answers\nrestart: failed"}}
    for _ in range(2):
        answer = await operator.post(f"/api/v1/incidents/{incident}/evidence", json=body)
        noted = incidents_schemas.IncidentDetail.model_validate(answer.json())
        assert noted.evidence == {"epoch": 3, **body["evidence"]}
        assert sorted(each.about for each in noted.deliveries) == ["evidence", "opened"]
        assert {each.recipient for each in noted.deliveries} == {"ann@example.org"}


async def test_evidence_is_bounded_and_the_hub_s_own_stays(
    api: Api, operator: httpx2.AsyncClient
) -> None:
    incident = await happen(api)
    path = f"/api/v1/incidents/{incident}/evidence"
    for evidence, status in [
        ({"epoch": "9"}, 409),
        ({}, 422),
        ({"Tried": "x"}, 422),
        ({"tried": "x" * 20_000}, 422),
    ]:
        answer = await operator.post(path, json={"evidence": evidence})
        assert answer.status_code == status, evidence
    for count in range(3):
        many = {f"text_{count}_{number}": "x" for number in range(16)}
        answer = await operator.post(path, json={"evidence": many, "tell": False})
    assert answer.status_code == 409
    other = f"/api/v1/incidents/{new_ulid()}/evidence"
    nowhere = await operator.post(other, json={"evidence": many})
    assert nowhere.status_code == 404
    assert (await operator.get(f"/api/v1/incidents/{incident}")).json()["evidence"]["epoch"] == 3
