"""The builds that wait: their order, their pauses after a loss, and which worker they need."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hostler_hub.lifecycle import Policy, Worker
from hostler_hub.runtime.ids import new_ulid
from hostler_hub.scheduling.backlog import RETRY, Backlog
from hostler_hub.scheduling.matching import Roster
from hostler_hub.scheduling.planner import Waiting
from hostler_hub.specs.build import BuildSpec
from hostler_hub.specs.worker import WorkerDefinition
from hostler_hub.workers.registry import Entry, Registry

NOW = 1_000_000_000.0
STEPS = [{"name": "s", "command": ["true"]}]


def waiting(at: float = NOW, *, not_before: float = 0.0, priority: int = 0, **asks: Any) -> Waiting:
    spec = BuildSpec.model_validate({"steps": STEPS, "requires": asks, "priority": priority})
    return Waiting(new_ulid(int(at * 1000)), spec, 0, priority, not_before)


@pytest.fixture
def registry() -> Registry:
    """Two workers, of which one has a label."""
    made = Registry()
    for name, labels in {"plain": [], "big": ["big"]}.items():
        given = {"name": name, "driver": "fake", "labels": labels}
        made.add(Entry(WorkerDefinition.model_validate(given), Worker(name, Policy()), revision=1))
    return made


@pytest.fixture
def wake() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
def backlog(registry: Registry, wake: asyncio.Event) -> Backlog:
    return Backlog(Roster(registry), wake)


def test_builds_are_ready_by_priority_and_then_by_age(backlog: Backlog) -> None:
    late, urgent, early = waiting(NOW + 1), waiting(NOW + 2, priority=5), waiting(NOW)
    for build in (late, urgent, early):
        backlog.put(build)
    assert backlog.ready(NOW + 3) == [urgent, early, late]
    assert list(backlog.waiting()) == [late, urgent, early]
    assert len(backlog) == 3


def test_a_build_that_is_added_wakes_the_dispatcher(backlog: Backlog, wake: asyncio.Event) -> None:
    backlog.put(waiting())
    assert wake.is_set()


def test_a_build_that_is_added_twice_is_there_once(backlog: Backlog) -> None:
    build = waiting()
    backlog.put(build)
    backlog.put(build)
    assert backlog.ready(NOW) == [build]
    backlog.taken(build.id)
    assert (len(backlog), backlog.ready(NOW), backlog.get(build.id)) == (0, [], None)
    assert backlog.need("plain") is None


def test_what_is_not_there_is_taken_without_effect(backlog: Backlog) -> None:
    build = waiting()
    backlog.put(build)
    backlog.taken("another")
    assert backlog.get(build.id) == build


def test_V13_a_build_rests_after_a_loss(backlog: Backlog) -> None:
    rested, resting = waiting(NOW), waiting(NOW + 1, not_before=NOW + 10)
    backlog.put(rested)
    backlog.put(resting)
    assert backlog.ready(NOW + 2) == [rested]
    assert backlog.next_ready_at(NOW + 2) == NOW + 10
    assert backlog.ready(NOW + 10) == [rested, resting]
    assert backlog.next_ready_at(NOW + 10) is None


def test_A9_a_clock_that_is_set_back_does_not_prolong_the_rest(backlog: Backlog) -> None:
    build = waiting(NOW, not_before=NOW)
    backlog.put(build)
    assert backlog.ready(NOW - 3600) == [build]


def test_V13_the_rest_doubles_up_to_a_minute() -> None:
    assert [RETRY.delay_s(attempt) for attempt in (1, 2, 3, 7, 100)] == [1, 2, 4, 60, 60]


def test_P20_a_worker_is_needed_by_the_oldest_build_that_fits_it(backlog: Backlog) -> None:
    resting = waiting(NOW, not_before=NOW + 60, labels=["big"])
    fits_all = waiting(NOW + 1)
    backlog.put(fits_all)
    backlog.put(resting)
    assert backlog.need("big") == resting.id
    assert backlog.need("plain") == fits_all.id
    backlog.taken(fits_all.id)
    assert backlog.need("plain") is None
