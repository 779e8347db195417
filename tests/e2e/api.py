"""The hub's REST API in the words of these tests."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, Self, TypeVar

import httpx2

WAIT_S = 60
_BASE = "/api/v1"

T = TypeVar("T")


async def until(asked: Callable[[], Awaitable[T]], enough: Callable[[T], Any] = bool) -> T:
    """Ask a process outside until it is enough, with a deadline; what it answered."""
    async with asyncio.timeout(WAIT_S):
        while not enough(answer := await asked()):  # noqa: ASYNC110 - there is no event to await
            await asyncio.sleep(0.1)
    return answer


class Api:
    """One administrator's requests; refusals other than the expected ones fail the test.

    Builds run as the agent unless a test, or its file by `run_as`, says otherwise: most of them
    meet the test at files that no user for builds could reach.
    """

    run_as: ClassVar[str] = "agent"

    def __init__(self, url: str, token: str) -> None:
        self.client = httpx2.AsyncClient(
            base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=WAIT_S + 30
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.aclose()

    async def post(self, path: str, body: Any, **headers: str) -> Any:
        answer = await self.client.post(_BASE + path, json=body, headers=headers)
        assert answer.is_success, answer.text
        return answer.json()

    async def get(self, path: str) -> Any:
        answer = await self.client.get(_BASE + path)
        assert answer.is_success, answer.text
        return answer.json()

    async def define(self, *names: str, **options: Any) -> None:
        defaults = {"driver": "local"}
        if options.get("driver") != "permanent":  # whose owner configures the agent
            defaults["run_as"] = self.run_as
        definitions = [{"name": name, **defaults, **options} for name in names]
        await self.post("/workers/define", {"workers": definitions})

    async def mode(self, worker: str, mode: str, reason: str | None = None) -> None:
        await self.post("/workers/mode", {"names": [worker], "mode": mode, "reason": reason})

    async def worker(self, name: str) -> Any:
        return await self.get(f"/workers/{name}")

    async def quarantined(self, worker: str) -> str:
        """Why it was quarantined the last time; the first quarantine itself is over in 10 s."""
        latest, *_ = (await self.get(f"/decisions?worker={worker}&kind=quarantine"))["items"]
        return str(latest["text"])

    async def idle(self, worker: str) -> None:
        """Wait until its slots are given back: a build has its result a moment before that."""
        await until(lambda: self.worker(worker), lambda view: not view["builds"])

    async def submit(
        self, *commands: Any, worker: str | None = None, key: str | None = None, **spec: Any
    ) -> str:
        """Submit a build of these commands, each a step (a dict is the step itself); its id.

        With a `key` it is the same build each time.
        """
        steps = [
            command if isinstance(command, dict) else {"name": f"s{index}", "command": command}
            for index, command in enumerate(commands)
        ]
        requires = {"worker": worker} if worker else {}
        headers = {"Idempotency-Key": key} if key else {}
        made = await self.post("/builds", {"steps": steps, "requires": requires, **spec}, **headers)
        build_id: str = made["id"]
        return build_id

    async def ended(self, build: str, patience_s: float = WAIT_S) -> Any:
        """The build's view once it has ended."""
        view = await self.get(f"/builds/{build}?wait_s={WAIT_S}")
        while view["finished_at"] is None and (patience_s := patience_s - WAIT_S) > 0:
            view = await self.get(f"/builds/{build}?wait_s={WAIT_S}")
        assert view["finished_at"] is not None, view
        return view

    async def cancel(self, build: str) -> Any:
        return await self.post(f"/builds/{build}/cancel", {"reason": "enough"})

    async def log(self, build: str, step: int = 0) -> bytes:
        """All of a step's log."""
        data, offset = b"", 0
        while True:
            answer = await self.client.get(
                f"{_BASE}/builds/{build}/steps/{step}/log?offset={offset}"
            )
            assert answer.is_success, answer.text
            data += answer.content
            if int(answer.headers["Hostler-Log-End"]) == offset:
                assert answer.headers["Hostler-Log-Complete"] == "true"
                return data
            offset = int(answer.headers["Hostler-Log-End"])

    async def output(self, build: str, step: int = 0) -> bytes:
        """What the step's command wrote, without the lines that the agent added (headers)."""
        _, _, rest = (await self.log(build, step)).partition(b" using PTY: False\n")
        output, _, _ = rest.rpartition(b"program finished with exit code")
        return output

    async def log_reaches(self, build: str, size_bytes: int, step: int = 0) -> None:
        """Follow the step's log until that much of it is durable."""
        url = f"{_BASE}/builds/{build}/steps/{step}/log?follow=true"
        seen = 0
        async with self.client.stream("GET", url) as answer:
            async for data in answer.aiter_bytes():
                seen += len(data)
                if seen >= size_bytes:
                    return
        raise AssertionError(f"the log ended at {seen} of {size_bytes} bytes")

    async def log_says(self, build: str, pattern: bytes, step: int = 0) -> re.Match[bytes]:
        """Follow the step's log until this is in it."""
        url = f"/api/v1/builds/{build}/steps/{step}/log?follow=true"
        said = b""
        async with self.client.stream("GET", url) as answer:
            async for data in answer.aiter_bytes():
                said += data
                if found := re.search(pattern, said):
                    return found
        raise AssertionError(said)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
