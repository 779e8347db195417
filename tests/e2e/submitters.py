"""People who submit builds while the hub is killed again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx2
from e2e.api import Api

if TYPE_CHECKING:
    from e2e.hub_process import HubProcess

BUSY = {429, 503}
"""What a hub answers that cannot accept anything now: asked again it may."""
ASK_AGAIN_S = 0.2


@dataclass
class Signs:
    """What those who submit and the one who does the harm tell each other."""

    up: asyncio.Event = field(default_factory=asyncio.Event)
    progress: asyncio.Event = field(default_factory=asyncio.Event)
    stopping: bool = False


class Submitter:
    """Submits one build after the other, and asks again whenever the hub was away (K1)."""

    def __init__(
        self, name: str, hub: HubProcess, signs: Signs, spec_of: Callable[[str], dict[str, Any]]
    ) -> None:
        self._name = name
        self._hub = hub
        self._signs = signs
        self._spec_of = spec_of
        self.ended: dict[str, dict[str, Any]] = {}

    async def run(self) -> None:
        number = 0
        while not self._signs.stopping:
            number += 1
            key = f"{self._name}-{number}"
            build = (await self._insist("POST", "/builds", self._spec_of(key), key))["id"]
            view: dict[str, Any] = {"finished_at": None}
            while view["finished_at"] is None:
                view = await self._insist("GET", f"/builds/{build}?wait_s=30")
            self.ended[key] = view
            self._signs.progress.set()

    async def _insist(self, method: str, path: str, body: Any = None, key: str = "") -> Any:
        while True:
            await self._signs.up.wait()
            try:
                async with Api(self._hub.url, self._hub.token) as api:
                    headers = {"Idempotency-Key": key} if key else {}
                    path_ = f"/api/v1{path}"
                    answer = await api.client.request(method, path_, json=body, headers=headers)
            except httpx2.TransportError:
                await asyncio.sleep(0)  # it has been killed: `up` was cleared before that
                continue
            if answer.status_code in BUSY:
                await asyncio.sleep(ASK_AGAIN_S)
                continue
            assert answer.is_success, answer.text
            return answer.json()
