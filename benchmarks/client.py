"""A small client of the hub's REST API, on one connection that stays open."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from benchmarks.processes import BenchmarkFailed

IDLE_S = 3.0
"""uvicorn closes a connection that has been idle for 5 s."""


class Client:
    """Not for threads: each takes its own."""

    def __init__(self, url: str, token: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=120)
        self._used_at = 0.0
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def close(self) -> None:
        self._connection.close()

    def get(self, path: str) -> Any:
        return self._call("GET", path, None)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        return self._call("POST", path, json.dumps(body).encode())

    def follow(self, path: str) -> Iterator[bytes]:
        """A streamed answer, piece by piece as it comes."""
        response = self._send("GET", path, None)
        if response.status != 200:
            raise BenchmarkFailed(f"GET {path}: {response.status} {response.read(500)!r}")
        while piece := response.read1(65536):
            yield piece

    def _call(self, method: str, path: str, body: bytes | None) -> Any:
        response = self._send(method, path, body)
        answer = response.read()
        if response.status >= 400:
            raise BenchmarkFailed(f"{method} {path}: {response.status} {answer[:500]!r}")
        return json.loads(answer)

    def _send(self, method: str, path: str, body: bytes | None) -> http.client.HTTPResponse:
        if time.monotonic() - self._used_at > IDLE_S:
            self._connection.close()  # it opens again by itself
        self._connection.request(method, path, body, self._headers)
        response = self._connection.getresponse()
        self._used_at = time.monotonic()
        return response
