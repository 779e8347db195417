"""The hub about itself, and the agents' door."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from starlette.testclient import TestClient

from hostler_hub import __version__
from hostler_hub.web import application
from hostler_hub.web.api.schemas import system as schemas

if TYPE_CHECKING:
    import httpx2
    from conftest import Api


async def test_health_needs_no_token(api: Api) -> None:
    answer = await api.client().get("/healthz")
    assert answer.json() == {"status": "ok", "version": __version__, "hub": api.hub.id}


async def test_status_counts(api: Api, operator: httpx2.AsyncClient) -> None:
    answer = await operator.get("/api/v1/status")
    status = schemas.Status.model_validate(answer.json())
    assert (status.version, status.hub) == (__version__, api.hub.id)


async def test_the_document_names_every_operation(operator: httpx2.AsyncClient) -> None:
    document = (await operator.get("/api/v1/openapi.json")).json()
    paths = {route.path.replace(":path}", "}") for route in application.routes()}
    of_the_api = {path for path in paths if path.startswith("/api/")} | {"/healthz"}
    hidden = {"/api/v1/agents/connect", "/api/v1/openapi.json"}
    assert set(document["paths"]) == of_the_api - hidden
    answer = document["paths"]["/api/v1/workers"]["get"]["responses"]["200"]
    assert answer["content"]["application/json"]["schema"]["$ref"].endswith("/WorkerPage")


@pytest.mark.parametrize("path", ["/", "/api/v1/agents/connect"])
def test_agents_are_handed_over(api: Api, path: str) -> None:
    with TestClient(api.app).websocket_connect(path) as socket:
        assert socket.receive_text() == path
