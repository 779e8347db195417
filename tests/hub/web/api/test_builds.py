"""The builds' routes: submit once, wait, cancel, read logs byte by byte."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from hostler_hub.specs.caller import Role
from hostler_hub.web.api.schemas import builds as schemas

if TYPE_CHECKING:
    import httpx2
    from conftest import Api, AsRole

BUILDS = "/api/v1/builds"
SPEC = {"steps": [{"name": "greet", "command": ["echo", "hello"]}]}


async def submit(client: httpx2.AsyncClient, spec: dict[str, Any] = SPEC, key: str = "") -> Any:
    headers = {"Idempotency-Key": key} if key else {}
    return await client.post(BUILDS, json=spec, headers=headers)


async def test_submitting_answers_201_with_the_place(as_role: AsRole) -> None:
    submitter = await as_role(Role.SUBMITTER)
    answer = await submit(submitter)
    assert answer.status_code == 201
    view = schemas.BuildView.model_validate(answer.json())
    assert view.submitted_by == "a-submitter"
    assert answer.headers["location"] == f"{BUILDS}/{view.id}"
    assert (await submitter.get(answer.headers["location"])).json() == answer.json()


async def test_a_known_idempotency_key_submits_nothing(
    api: Api, operator: httpx2.AsyncClient
) -> None:
    first = await submit(operator, key="k1")
    second = await submit(operator, key="k1")
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json()["id"] == second.json()["id"]
    other = {"steps": [{"name": "greet", "command": ["true"]}]}
    assert (await submit(operator, other, key="k1")).status_code == 409
    assert len(api.queue.builds) == 1
    assert (await submit(operator, key="a key with spaces")).status_code == 422
    assert (await submit(operator, key="k" * 256)).status_code == 422


async def test_waiting_is_bounded(api: Api, operator: httpx2.AsyncClient) -> None:
    place = (await submit(operator)).headers["location"]
    assert (await operator.get(f"{place}?wait_s=30")).status_code == 200
    assert api.queue.waited == [30]
    assert (await operator.get(f"{place}?wait_s=61")).status_code == 422
    assert (await operator.get(f"{place}?wait_s=nan")).status_code == 422


async def test_cancel_with_and_without_a_reason(operator: httpx2.AsyncClient) -> None:
    place = (await submit(operator)).headers["location"]
    answer = await operator.post(f"{place}/cancel", json={"reason": "typo"})
    assert answer.json()["result_text"] == "cancelled by a-operator: typo"
    assert (await operator.post(f"{place}/cancel")).status_code == 200
    unknown = f"{BUILDS}/01K8Z9Q8Y3N6V4T2R0P9M7K5J3/cancel"
    assert (await operator.post(unknown)).status_code == 404


async def test_pages(operator: httpx2.AsyncClient) -> None:
    ids = [(await submit(operator)).json()["id"] for _ in range(3)]
    answer = await operator.get(f"{BUILDS}?limit=2&state=queued")
    page = schemas.BuildPage.model_validate(answer.json())
    assert [each.id for each in page.items] == ids[:0:-1]
    assert (await operator.get(f"{BUILDS}?state=retry")).status_code == 422


async def test_logs_are_bytes_with_offsets(api: Api, operator: httpx2.AsyncClient) -> None:
    """E12: what a build wrote comes out as it was, and never as a page (U8)."""
    api.queue.log = b"<script>\xff\x00\r\n\xc3"
    place = (await submit(operator)).headers["location"] + "/steps/0/log"
    whole = await operator.get(place)
    assert whole.content == api.queue.log
    assert whole.headers["content-type"] == "text/plain; charset=utf-8"
    assert whole.headers["content-disposition"].startswith("attachment")
    assert whole.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in whole.headers["content-security-policy"]
    part = await operator.get(f"{place}?offset=2&limit=3")
    assert part.content == api.queue.log[2:5]
    assert part.headers["hostler-log-offset"] == "2"
    assert part.headers["hostler-log-end"] == "5"
    assert part.headers["hostler-log-complete"] == "true"


async def test_following_streams_to_the_end(api: Api, operator: httpx2.AsyncClient) -> None:
    api.queue.log = b"0123456789"
    place = (await submit(operator)).headers["location"] + "/steps/0/log"
    async with operator.stream("GET", f"{place}?follow=true&offset=1") as answer:
        assert answer.status_code == 200
        assert await answer.aread() == b"123456789"


@pytest.mark.parametrize("follow", ["true", "false"])
async def test_logs_of_nothing_are_not_found(operator: httpx2.AsyncClient, follow: str) -> None:
    build = f"{BUILDS}/01K8Z9Q8Y3N6V4T2R0P9M7K5J3"
    assert (await operator.get(f"{build}/steps/0/log?follow={follow}")).status_code == 404
    assert (await operator.get(f"{build}/steps/x/log?follow={follow}")).status_code == 404
    place = (await submit(operator)).headers["location"]
    assert (await operator.get(f"{place}/steps/0/log?offset=-1")).status_code == 422
