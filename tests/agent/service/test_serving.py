"""An agent that another thread ends, as a service does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hostler_agent.config import Config
from hostler_agent.errors import ConfigurationError
from hostler_agent.service.serving import Serving

ULID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"


class Agents:
    """Runs in place of the real ones; each is sent away by `leave` or drains as told."""

    def __init__(self) -> None:
        self.runs = 0
        self.said: list[str] = []
        self.started = threading.Event()
        self.codes: list[int] = []

    def run(self, _config: Config, started: Callable[[Any], None]) -> int:
        async def serve() -> None:
            self.left = asyncio.Event()
            started(self)
            self.runs += 1
            self.started.set()
            if self.codes:
                return
            await self.left.wait()

        asyncio.run(serve())
        return self.codes.pop(0) if self.codes else 0

    def finish(self) -> None:
        self.said.append("finish")

    def stop(self) -> None:
        self.said.append("stop")
        self.left.set()


@pytest.fixture
def agents(monkeypatch: pytest.MonkeyPatch) -> Agents:
    made = Agents()
    monkeypatch.setattr("hostler_agent.run.run", made.run)
    return made


def config(instance: str | None = None) -> Config:
    return Config("wss://hub.example/x", "w-1", "secret", Path("work"), instance)


def test_asked_to_end_it_drains_and_is_stopped_at_the_deadline(agents: Agents) -> None:
    serving = Serving(config)
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(serving.run()))
    thread.start()
    assert agents.started.wait(60)
    serving.end(0.01)
    thread.join(60)
    assert (codes, agents.said, agents.runs) == ([0], ["finish", "stop"], 1)
    serving.end(0.01)  # there is nobody any more


def test_a_permanent_worker_that_was_sent_away_comes_again(agents: Agents) -> None:
    agents.codes = [0, 0, 1]
    assert Serving(config, again_s=0).run() == 1  # a failure is for the supervisor
    assert agents.runs == 3


def test_an_instance_that_was_sent_away_stays_away(agents: Agents) -> None:
    agents.codes = [0]
    assert Serving(lambda: config(ULID), again_s=0).run() == 0
    assert agents.runs == 1


def test_ended_before_it_runs_it_does_not_stay(agents: Agents) -> None:
    serving = Serving(config)
    serving.end(0)
    assert serving.run() == 0
    assert agents.said == ["finish", "stop"]


def test_what_its_preparation_says_is_the_callers(agents: Agents) -> None:
    def refuse() -> Config:
        raise ConfigurationError("option 'hub' is missing")

    with pytest.raises(ConfigurationError, match="'hub'"):
        Serving(refuse).run()
    assert agents.runs == 0
