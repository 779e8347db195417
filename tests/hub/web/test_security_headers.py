"""The security headers of every answer (U8), and the limit of a request's headers (U4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostler_hub.web.security_headers import HEADER_SIZE_BYTES

if TYPE_CHECKING:
    import httpx2


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
