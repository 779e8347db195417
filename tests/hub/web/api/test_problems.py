"""Every refusal is application/problem+json that names the place and repeats no secret."""

from __future__ import annotations

import sqlite3
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import pytest
import structlog
from hub.web.harness import api_on
from pydantic import model_validator

from hostler_hub.drivers.contract import DriverOptions
from hostler_hub.drivers.fake.driver import FakeDriver
from hostler_hub.lifecycle.backoff import Backoff
from hostler_hub.specs.caller import Role
from hostler_hub.store.engine import Store
from hostler_hub.store.tuning import Tuning

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx2
    from hub.web.harness import Site

    from hostler_hub.runtime.settings import Settings

DEFINE = "/api/v1/workers/define"
BUILDS = "/api/v1/builds"


def problem(answer: httpx2.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["status"] == status
    assert {"type", "title", "detail", "pointer"} <= set(body)
    assert body["type"].startswith("about:blank#")
    return body


@pytest.mark.parametrize(
    ("path", "body", "pointers"),
    [
        (DEFINE, {"workers": [{"name": "a", "driver": "fake"}, {"name": "B"}]},
         ["/workers/1/name", "/workers/1/driver"]),
        (DEFINE, {"workers": [{"name": "a", "driver": "fake", "labels": ["x", 1]}]},
         ["/workers/0/labels/1"]),
        (DEFINE, {"workers": [{"name": "a", "driver": "fake", "a/b~c": 1}]},
         ["/workers/0/a~1b~0c"]),
        (DEFINE, {"workers": [{"name": "a", "driver": "fake", "properties": {"9": 1}}]},
         ["/workers/0/properties/9"]),
        (DEFINE, {"workers": [{"name": "a", "driver": "fake", "properties": {"p": []}}]},
         ["/workers/0/properties/p"]),
        (DEFINE, {}, ["/workers"]),
        (DEFINE, [], [""]),
        (BUILDS, {"steps": [{"name": "x", "command": ["a", 1]}]}, ["/steps/0/command"]),
        (BUILDS, {"steps": []}, ["/steps"]),
    ],
)  # fmt: skip
async def test_pointers_lead_into_the_body(
    operator: httpx2.AsyncClient, path: str, body: Any, pointers: list[str]
) -> None:
    found = problem(await operator.post(path, json=body), 422)
    assert [each["pointer"] for each in found["errors"]] == pointers
    assert found["pointer"] == pointers[0]
    assert all(each["detail"] for each in found["errors"])


@pytest.mark.parametrize("body", [b"{", b"\xff", b'"\\ud800"', b"[" * 100_000, b"9" * 5000, b""])
async def test_broken_bodies_are_the_senders_fault(
    operator: httpx2.AsyncClient, body: bytes
) -> None:
    headers = {"Content-Type": "application/json"}
    answer = await operator.post(DEFINE, content=body, headers=headers)
    problem(answer, answer.status_code)
    assert answer.status_code in (400, 422)


async def test_a_body_of_another_type_says_so(operator: httpx2.AsyncClient) -> None:
    headers = {"Content-Type": "application/x-yaml"}
    answer = await operator.post(DEFINE, content=b"workers: []", headers=headers)
    assert "application/json" in problem(answer, 422)["detail"]


async def test_a_password_is_not_repeated(operator: httpx2.AsyncClient) -> None:
    worker = {"name": "a", "driver": "permanent", "password": ["hunter2"]}
    answer = await operator.post(DEFINE, json={"workers": [worker]})
    assert problem(answer, 422)["pointer"] == "/workers/0/password"
    assert "hunter2" not in answer.text


async def test_query_parameters_are_checked(operator: httpx2.AsyncClient) -> None:
    found = problem(await operator.get("/api/v1/workers?limit=501"), 422)
    assert found["pointer"] is None
    assert "limit" in found["detail"]
    problem(await operator.get("/api/v1/workers?sort=name"), 422)
    problem(await operator.get("/api/v1/workers?mode=asleep"), 422)


@pytest.mark.parametrize("path", ["/api/v1/nothing", "/api/v1/workers/", "/docs", "/redoc"])
async def test_unknown_paths(operator: httpx2.AsyncClient, path: str) -> None:
    problem(await operator.get(path), 404)


async def test_an_id_that_cannot_be_one_is_not_found(operator: httpx2.AsyncClient) -> None:
    problem(await operator.get(f"{BUILDS}/x%00y"), 404)
    problem(await operator.get(f"{BUILDS}/01K8Z9Q8Y3N6V4T2R0P9M7K5J3"), 404)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/api/v1/workers/a", "DELETE, GET"),
        ("PATCH", BUILDS, "GET, POST"),
        ("GET", DEFINE, None),
        ("POST", "/healthz", "GET"),
        ("PUT", DEFINE, "DELETE, GET, POST"),
    ],
)
async def test_405_names_every_method_of_the_path(
    operator: httpx2.AsyncClient, method: str, path: str, allowed: str | None
) -> None:
    """A framework's own answer names one route's methods only."""
    answer = await operator.request(method, path)
    if allowed is None:  # "define" is also a worker that could be
        problem(answer, 404)
        return
    problem(answer, 405)
    assert answer.headers["allow"] == allowed


class BrokenOptions(DriverOptions):
    """Options of somebody's driver whose check breaks."""

    @model_validator(mode="after")
    def _broken(self) -> Self:
        raise RuntimeError("the secret is hunter2")


class BrokenDriver(FakeDriver):
    name = "broken"
    options_model = BrokenOptions


async def test_what_nobody_foresaw_shows_no_internals(site: Site) -> None:
    """A third party's driver raises where the contract allows a refusal only."""
    drivers = {"broken": BrokenDriver}
    async with api_on(replace(site, sources=replace(site.sources, drivers=lambda: drivers))) as api:
        operator = api.client(await api.token(Role.OPERATOR))
        with structlog.testing.capture_logs() as logged:
            worker = {"name": "a", "driver": "broken"}
            answer = await operator.post(DEFINE, json={"workers": [worker]})
        problem(answer, 500)
        assert [(each["event"], each["path"]) for each in logged] == [("request failed", DEFINE)]
        assert "hunter2" not in answer.text
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert (await operator.get("/api/v1/workers/a")).status_code == 404


@asynccontextmanager
async def impatient_store(settings: Settings) -> AsyncIterator[Store]:
    """The hub's store, with a patience that a test can wait for."""
    tuning = Tuning(busy_timeout_s=0.01, patience_s=0.05, retry=Backoff(0.001, 0.01))
    async with Store(settings.database_url, exclusive=True, tuning=tuning) as store:
        yield store


async def test_a_store_that_is_away_is_503(site: Site) -> None:
    """V12: an outage of the store is said to be one, and is over when it is over."""
    impatient = replace(site.sources, store=impatient_store)
    async with api_on(replace(site, sources=impatient)) as api:
        operator = api.client(await api.token(Role.OPERATOR))
        body = {"workers": [{"name": "a", "driver": "fake"}]}
        with closing(sqlite3.connect(site.settings.state_dir / "hub.sqlite3")) as other:
            other.execute("BEGIN IMMEDIATE")
            answer = await operator.post(DEFINE, json=body)
            problem(answer, 503)
            assert int(answer.headers["retry-after"]) > 0
            assert (await operator.get("/api/v1/workers/a")).status_code == 404
            other.rollback()
        assert (await operator.post(DEFINE, json=body)).status_code == 200


async def test_problems_are_documented(operator: httpx2.AsyncClient) -> None:
    document = (await operator.get("/api/v1/openapi.json")).json()
    assert "Problem" in document["components"]["schemas"]
    assert "HTTPValidationError" not in document["components"]["schemas"]
    for path, operations in document["paths"].items():
        for operation in operations.values():
            if path in ("/healthz", "/api/v1/agents/archive/{sha256}"):
                continue
            assert operation["security"] == [{"token": []}], path
            for status in ("401", "403", "422", "500"):
                assert list(operation["responses"][status]["content"]) == [
                    "application/problem+json"
                ]


async def test_a_body_that_is_no_text_is_refused_like_any_other(
    operator: httpx2.AsyncClient,
) -> None:
    headers = {"content-type": "application/json"}
    answer = await operator.post(DEFINE, content=b"\xff{}", headers=headers)
    assert "UTF-8" in problem(answer, 422)["detail"]


@pytest.mark.parametrize("number", ["0.5", "1700000000", "12"])
async def test_a_number_is_no_instant(operator: httpx2.AsyncClient, number: str) -> None:
    found = await operator.get("/api/v1/decisions", params={"since": number})
    assert "2026-01-02T03:04:05Z" in problem(found, 422)["detail"]
    body = {"names": [], "mode": "paused", "until": number}
    answer = await operator.post("/api/v1/workers/mode", json=body)
    assert problem(answer, 422)["pointer"] == "/until"
