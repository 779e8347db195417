"""The page on the whole hub: whose a worker is, what was decided about it, and why."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from hostler_hub.app import create_app
from hostler_hub.runtime.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

URL = "http://127.0.0.1:8010"


@pytest.fixture
async def visitor(tmp_path: Path) -> AsyncIterator[httpx2.AsyncClient]:
    """Signed in to the page, and with the token for the REST API."""
    settings = Settings(state_dir=tmp_path / "hub", port=8010)
    settings.prepare_state_dir()
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        token = settings.admin_token_file.read_text().strip()
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url=URL) as made:
            form = {"token": token, "next": "/"}
            inside = await made.post("/login", data=form, headers={"origin": URL})
            assert inside.status_code == 303
            made.token = token  # type: ignore[attr-defined]
            yield made


async def order(visitor: httpx2.AsyncClient, path: str, body: dict[str, Any]) -> None:
    access = {"Authorization": f"Bearer {visitor.token}"}  # type: ignore[attr-defined]
    answer = await visitor.post(f"/api/v1{path}", json=body, headers=access)
    assert answer.is_success, answer.text


async def shown(visitor: httpx2.AsyncClient, path: str, words: str) -> str:
    """The page, once it says so: what the hub decides it does in the background."""
    async with asyncio.timeout(60):
        while words not in (page := (await visitor.get(path)).text):
            pass
    return page


async def test_a_lease_a_decision_and_the_reason_are_shown(visitor: httpx2.AsyncClient) -> None:
    fake = {"name": "web-1", "driver": "fake"}
    await order(visitor, "/workers/define", {"workers": [fake, {**fake, "name": "web-2"}]})
    lease = {"worker": "web-1", "reason": "look at its disk", "wait_s": 600}
    await order(visitor, "/leases", lease)
    fleet = (await visitor.get("/")).text
    assert "waited for by admin until" in fleet
    assert "look at its disk" in fleet
    worker = await shown(visitor, "/workers/web-1", "a person waits for it")  # so it is started
    assert "look at its disk" in worker
    idle = (await visitor.get("/workers/web-2")).text
    assert "no queued build needs it" in idle
