"""The hub about itself, and the agents' door."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hostler_agent.wire.extension import Handshake
from hostler_hub import __version__
from hostler_hub.web import application
from hostler_hub.web.api.schemas import system as schemas

if TYPE_CHECKING:
    import httpx2
    from hub.web.harness import Api

WORKERS = "/api/v1/workers"


async def test_health_needs_no_token(api: Api) -> None:
    answer = await api.client().get("/healthz")
    assert answer.json() == {"status": "ok", "version": __version__, "hub": api.hub.id}


async def test_status_counts(api: Api, operator: httpx2.AsyncClient) -> None:
    answer = await operator.get("/api/v1/status")
    status = schemas.Status.model_validate(answer.json())
    assert (status.version, status.hub) == (__version__, api.hub.id)


async def test_the_document_names_every_operation(operator: httpx2.AsyncClient) -> None:
    document = (await operator.get("/api/v1/openapi.json")).json()
    paths = {route.path.replace(":name}", "}") for route in application.routes()}
    of_the_api = {path for path in paths if path.startswith("/api/")} | {"/healthz", "/readyz"}
    hidden = {"/api/v1/agents/connect", "/api/v1/openapi.json"}
    assert set(document["paths"]) == of_the_api - hidden
    answer = document["paths"]["/api/v1/workers"]["get"]["responses"]["200"]
    assert answer["content"]["application/json"]["schema"]["$ref"].endswith("/WorkerPage")


@pytest.mark.parametrize("path", ["/", "/api/v1/agents/connect"])
async def test_agents_attach_by_either_path(
    api: Api, operator: httpx2.AsyncClient, path: str
) -> None:
    await operator.post(f"{WORKERS}/define", json={"workers": [{"name": "w", "driver": "fake"}]})
    await operator.post(f"{WORKERS}/substantiate", json={"names": ["w"]})
    await api.attach("w", path)
    status = schemas.Status.model_validate((await operator.get("/api/v1/status")).json())
    assert (status.workers.attached, status.workers.by_state["substantiated"]) == (1, 1)


async def test_a_stranger_at_the_agents_door_is_refused_and_recorded(
    api: Api, operator: httpx2.AsyncClient
) -> None:
    stranger = await api.come(Handshake("nobody", "guess", "s" * 43), client="192.0.2.66")
    assert stranger.status == 401
    refusals = (await operator.get("/api/v1/refusals")).json()["items"]
    assert [(each["name"], each["client"]) for each in refusals] == [("nobody", "192.0.2.66")]
