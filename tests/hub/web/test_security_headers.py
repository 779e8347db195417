"""The security headers of every answer (U8), and the limit of a request's headers (U4)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from hostler_hub.web.security_headers import HEADER_SIZE_BYTES, SecurityHeaders

if TYPE_CHECKING:
    import httpx2
    from starlette.types import Message, Receive, Scope, Send


async def no_body() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def test_headers_up_to_the_limit(operator: httpx2.AsyncClient) -> None:
    size_bytes = sum(len(k) + len(v) + 4 for k, v in operator.headers.raw)
    size_bytes += len("host") + len("hub.example") + 4 + len("x-pad") + 4
    for past, status in ((0, 200), (1, 431)):
        pad = "x" * (HEADER_SIZE_BYTES - size_bytes + past)
        answer = await operator.get("/healthz", headers={"X-Pad": pad})
        assert answer.status_code == status
    assert answer.json()["type"] == "about:blank#headers-too-large"


async def test_headers_of_every_answer(operator: httpx2.AsyncClient) -> None:
    for path in ("/healthz", "/api/v1/workers", "/nothing"):
        headers = (await operator.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "strict-transport-security" not in headers
    secure = await operator.get("https://hub.example/healthz")
    assert "max-age" in secure.headers["strict-transport-security"]


async def test_who_waits_when_the_hub_stops_is_told_so() -> None:
    """The server cancels what has not ended: a long poll is answered, not cut off."""
    answers: list[Message] = []
    waits = asyncio.Event()

    async def waiting(scope: Scope, receive: Receive, send: Send) -> None:
        waits.set()
        await asyncio.Event().wait()

    async def send(message: Message) -> None:
        answers.append(message)

    scope = {"type": "http", "scheme": "http", "method": "GET", "path": "/", "headers": []}
    asking = asyncio.create_task(SecurityHeaders(waiting)(scope, no_body, send))
    await waits.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    start, body = answers
    assert start["status"] == 503
    assert (b"retry-after", b"5") in start["headers"]
    assert b"The hub is stopping" in body["body"]


async def test_an_answer_that_breaks_off_is_cut_and_not_completed() -> None:
    answers: list[Message] = []

    async def breaking(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("the disk is gone")

    async def send(message: Message) -> None:
        answers.append(message)

    scope = {"type": "http", "scheme": "http", "method": "GET", "path": "/", "headers": []}
    with pytest.raises(RuntimeError):
        await SecurityHeaders(breaking)(scope, no_body, send)
    assert [each["type"] for each in answers] == ["http.response.start"]
