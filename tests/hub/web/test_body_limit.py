"""The limits of request bodies (U4: one byte past each)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hostler_hub.web.body_limit import BODY_SIZE_BYTES, BODY_SIZES_BYTES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx2

DEFINE = "/api/v1/workers/define"
QUERY = "/api/v1/workers/query"


def padded(body: str, size_bytes: int) -> bytes:
    return body.encode() + b" " * (size_bytes - len(body))


@pytest.mark.parametrize(
    ("path", "body", "limit"),
    [
        (QUERY, '{"names": []}', BODY_SIZE_BYTES),
        (DEFINE, '{"workers": []}', BODY_SIZES_BYTES[DEFINE]),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_bodies_up_to_the_limit(
    operator: httpx2.AsyncClient, path: str, body: str, limit: int, streamed: bool
) -> None:
    headers = {"Content-Type": "application/json"}

    async def pieces(content: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(content), 65536):
            yield content[start : start + 65536]

    for size_bytes, status in ((limit, 200), (limit + 1, 413)):
        content = padded(body, size_bytes)
        answer = await operator.post(
            path, content=pieces(content) if streamed else content, headers=headers
        )
        assert answer.status_code == status
    assert answer.json()["type"] == "about:blank#too-large"
    assert str(limit) in answer.json()["detail"]


async def test_a_stream_is_cut_where_the_limit_is(operator: httpx2.AsyncClient) -> None:
    """The hub's memory is bounded whatever the peer sends (V15)."""
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 100 * BODY_SIZE_BYTES:
            sent += 65536
            yield b" " * 65536

    headers = {"Content-Type": "application/json"}
    answer = await operator.post(QUERY, content=endless(), headers=headers)
    assert answer.status_code == 413
    assert sent <= BODY_SIZE_BYTES + 2 * 65536
