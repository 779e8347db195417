"""The builds' routes: submit once, wait, cancel, read logs byte by byte."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from hostler_agent.wire import messages
from hostler_agent.wire.extension import Output, Receipt
from hostler_hub.specs.caller import Role
from hostler_hub.web.api.schemas import builds as schemas

if TYPE_CHECKING:
    import httpx2
    from agent_peer import Peer
    from conftest import AsRole
    from hub.web.harness import Api

BUILDS = "/api/v1/builds"
WORKERS = "/api/v1/workers"
UNKNOWN = f"{BUILDS}/01K8Z9Q8Y3N6V4T2R0P9M7K5J3"
SPEC = {"steps": [{"name": "greet", "command": ["echo", "hello"]}]}


async def submit(client: httpx2.AsyncClient, spec: dict[str, Any] = SPEC, key: str = "") -> Any:
    headers = {"Idempotency-Key": key} if key else {}
    return await client.post(BUILDS, json=spec, headers=headers)


class RunningAgent:
    """An attached agent that runs the build's one command as the test tells it to."""

    def __init__(self, peer: Peer, build: str) -> None:
        self._peer = peer
        self._command_id = f"{build}.1.0"
        self._written = 0

    async def started(self) -> None:
        async with asyncio.timeout(60):
            await self._peer.was_started.wait()

    def write(self, data: bytes) -> None:
        """The command's next output."""
        self._update([Output("stdout", self._written, data).pair()])
        self._written += len(data)

    def end(self) -> None:
        """The command ends well; so does every later one, such as the cleaning of the workspace."""
        self._update([Receipt("exited", 0, "none").pair(), ["rc", 0]])
        self._peer.completes = True
        self._tell(messages.Complete(self._command_id))

    def _update(self, pairs: list[list[Any]]) -> None:
        self._tell(messages.Update(self._command_id, pairs))

    def _tell(self, message: messages.Message) -> None:
        frame = self._peer.wire.request(message, object())
        self._peer.incoming.put_nowait({"type": "websocket.receive", "bytes": frame})


@pytest.fixture(autouse=True)
async def worker(operator: httpx2.AsyncClient) -> str:
    """A worker that could run a build, and is paused: builds wait, as long as a test wants."""
    workers = [{"name": "w", "driver": "fake"}]
    assert (await operator.post(f"{WORKERS}/define", json={"workers": workers})).is_success
    order = {"names": ["w"], "mode": "paused"}
    assert (await operator.post(f"{WORKERS}/mode", json=order)).is_success
    return "w"


async def start(api: Api, operator: httpx2.AsyncClient) -> tuple[str, RunningAgent]:
    """Submit a build and have it started; its path, and the agent that runs it."""
    place = (await submit(operator)).headers["location"]
    await operator.post(f"{WORKERS}/mode", json={"names": ["w"], "mode": "active"})
    await api.until("/workers/w", state="substantiating")
    agent = RunningAgent(await api.attach("w", completes=False), place.rpartition("/")[2])
    await agent.started()
    return place, agent


async def test_submitting_answers_201_with_the_place(as_role: AsRole) -> None:
    submitter = await as_role(Role.SUBMITTER)
    answer = await submit(submitter)
    assert answer.status_code == 201
    view = schemas.BuildView.model_validate(answer.json())
    assert view.submitted_by == "a-submitter"
    assert answer.headers["location"] == f"{BUILDS}/{view.id}"
    found = (await submitter.get(answer.headers["location"])).json()
    assert {**found, "why": None} == {**answer.json(), "why_workers": found["why_workers"]}


async def test_a_known_idempotency_key_submits_nothing(operator: httpx2.AsyncClient) -> None:
    first = await submit(operator, key="k1")
    second = await submit(operator, key="k1")
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json()["id"] == second.json()["id"]
    other = {"steps": [{"name": "greet", "command": ["true"]}]}
    assert (await submit(operator, other, key="k1")).status_code == 409
    assert len((await operator.get(BUILDS)).json()["items"]) == 1
    assert (await submit(operator, key="a key with spaces")).status_code == 422
    assert (await submit(operator, key="k" * 256)).status_code == 422


async def test_another_caller_s_idempotency_key_is_another_key(
    operator: httpx2.AsyncClient, as_role: AsRole
) -> None:
    first = await submit(operator, key="k1")
    second = await submit(await as_role(Role.SUBMITTER), key="k1")
    assert (first.status_code, second.status_code) == (201, 201)


async def test_waiting_ends_with_the_build_or_after_its_time(operator: httpx2.AsyncClient) -> None:
    place = (await submit(operator)).headers["location"]
    assert (await operator.get(f"{place}?wait_s=0.01")).json()["state"] == "queued"
    waiting = asyncio.create_task(operator.get(f"{place}?wait_s=60"))
    assert (await operator.get(place)).json()["state"] == "queued"
    assert not waiting.done()
    await operator.post(f"{place}/cancel")
    async with asyncio.timeout(30):
        assert (await waiting).json()["state"] == "cancelled"
    for wrong in ("61", "nan", "-1"):
        assert (await operator.get(f"{place}?wait_s={wrong}")).status_code == 422


async def test_cancel_with_and_without_a_reason(operator: httpx2.AsyncClient) -> None:
    for body, text in (
        ({"json": {"reason": "typo"}}, "cancelled by a-operator: typo"),
        ({}, "cancelled by a-operator"),
    ):
        place = (await submit(operator)).headers["location"]
        answer = await operator.post(f"{place}/cancel", **body)
        view = schemas.BuildView.model_validate(answer.json())
        assert (view.state, view.result_text) == ("cancelled", text)
    assert (await operator.post(f"{UNKNOWN}/cancel")).status_code == 404


async def test_pages(operator: httpx2.AsyncClient) -> None:
    ids = [(await submit(operator)).json()["id"] for _ in range(3)]
    answer = await operator.get(f"{BUILDS}?limit=2&state=queued")
    page = schemas.BuildPage.model_validate(answer.json())
    assert [each.id for each in page.items] == ids[:0:-1]
    rest = await operator.get(f"{BUILDS}?limit=2&after={page.next}")
    assert [each["id"] for each in rest.json()["items"]] == ids[:1]
    assert (await operator.get(f"{BUILDS}?state=success")).json()["items"] == []
    assert (await operator.get(f"{BUILDS}?worker=w")).json()["items"] == []
    assert (await operator.get(f"{BUILDS}?state=retry")).status_code == 422


async def test_logs_are_bytes_with_offsets(api: Api, operator: httpx2.AsyncClient) -> None:
    """E12: what a build wrote comes out as it was, and never as a page (U8)."""
    written = b"<script>\xff\x00\r\n\xc3"
    build, agent = await start(api, operator)
    place = f"{build}/steps/0/log"
    agent.write(written)
    agent.end()
    assert (await operator.get(f"{build}?wait_s=60")).json()["state"] == "success"
    whole = await operator.get(place)
    assert whole.content == written
    assert whole.headers["content-type"] == "text/plain; charset=utf-8"
    assert whole.headers["content-disposition"].startswith("attachment")
    assert whole.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in whole.headers["content-security-policy"]
    part = await operator.get(f"{place}?offset=2&limit=3")
    assert part.content == written[2:5]
    assert part.headers["hostler-log-offset"] == "2"
    assert part.headers["hostler-log-end"] == "5"
    assert [each.headers["hostler-log-complete"] for each in (part, whole)] == ["false", "true"]


async def test_following_streams_to_the_end(api: Api, operator: httpx2.AsyncClient) -> None:
    build, agent = await start(api, operator)
    agent.write(b"01234")
    following = asyncio.create_task(operator.get(f"{build}/steps/0/log?follow=true&offset=1"))
    while (await operator.get(f"{build}/steps/0/log")).content != b"01234":
        assert not following.done()
    agent.write(b"56789")
    agent.end()
    async with asyncio.timeout(30):
        answer = await following
    assert (answer.status_code, answer.content) == (200, b"123456789")


@pytest.mark.parametrize("follow", ["true", "false"])
async def test_logs_of_nothing_are_not_found(operator: httpx2.AsyncClient, follow: str) -> None:
    place = (await submit(operator)).headers["location"]
    for log in (f"{UNKNOWN}/steps/0/log", f"{UNKNOWN}/steps/x/log", f"{place}/steps/1/log"):
        assert (await operator.get(f"{log}?follow={follow}")).status_code == 404
    assert (await operator.get(f"{place}/steps/0/log?offset=-1")).status_code == 422
