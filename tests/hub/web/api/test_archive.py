"""GET /api/v1/agents/archive/{sha256}."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from hostler_hub.drivers import agent_archive

if TYPE_CHECKING:
    from hub.web.harness import Api


def url(digest: str) -> str:
    return f"/api/v1/agents/archive/{digest}"


async def test_anybody_may_fetch_it_by_its_digest(api: Api) -> None:
    made = agent_archive.install(api.hub.settings.archive_dir)
    answer = await api.client().get(url(made.sha256))
    assert answer.status_code == 200
    assert hashlib.sha256(answer.content).hexdigest() == made.sha256
    assert answer.headers["etag"] == f'"{made.sha256}"'
    assert "immutable" in answer.headers["cache-control"]
    known = {"If-None-Match": f'"{made.sha256}"'}
    again = await api.client().get(url(made.sha256), headers=known)
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("digest", ["0" * 64, "..", "%2e%2e%2fadmin.token", "A" * 64, "0" * 63])
async def test_nothing_else_is_there(api: Api, digest: str) -> None:
    agent_archive.install(api.hub.settings.archive_dir)
    answer = await api.client().get(url(digest))
    assert answer.status_code in (404, 422)
    assert answer.headers["content-type"].startswith("application/problem+json")
