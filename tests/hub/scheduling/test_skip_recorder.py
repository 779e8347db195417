"""When it is written down that builds wait: not at once, not too often, and once for a rule."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable
from typing import Any, cast

import pytest

from hostler_hub.runtime.ids import earliest_ulid
from hostler_hub.runtime.virtual_clock import VirtualClock
from hostler_hub.scheduling.planner import Waiting
from hostler_hub.scheduling.reasons import Skip
from hostler_hub.scheduling.skip_recorder import AFTER_S, EVERY_S, SkipRecorder
from hostler_hub.specs.build import BuildSpec
from hostler_hub.workers.decisions import Decision


class Fixture:
    """The neighbours of SkipRecorder: what waits, what is said of it, and what is written."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.builds: list[Waiting] = []
        self.rule = "busy"
        self.asked = 0
        self.written: list[Decision] = []
        self.done_with: list[Hashable] = []
        self.kept: Collection[Hashable] = ()
        neighbours = cast("Any", self)
        self.recorder = SkipRecorder(self.clock, self, neighbours, neighbours)

    def waiting(self) -> Iterable[Waiting]:
        return self.builds

    def skip_of(self, build: Waiting, now: float) -> Skip:
        self.asked += 1
        return Skip("retry_backoff" if build.not_before > now else self.rule, "why", {"fitting": 1})

    def skipped(self, key: Hashable, decision: Decision) -> None:
        assert key == ("build", decision.build)
        self.written.append(decision)

    def done(self, key: Hashable) -> None:
        self.done_with.append(key)

    def keep(self, about: str, names: Collection[Hashable]) -> None:
        assert about == "build"
        self.kept = names

    def submit(self, *, age_s: float = 10, retried_in_s: float = 0, **requires: Any) -> str:
        now = self.clock.now()
        steps = [{"name": "s", "command": ["true"]}]
        spec = BuildSpec.model_validate({"requires": requires, "steps": steps})
        build_id = earliest_ulid(int((now - age_s) * 1000))[:-2] + f"{len(self.builds):02d}"
        not_before = now + retried_in_s if retried_in_s else 0.0
        self.builds.append(Waiting(build_id, spec, 1, 0, not_before))
        return build_id


@pytest.fixture
def it() -> Fixture:
    return Fixture()


def test_it_looks_a_moment_later_and_once_however_often_it_is_told(it: Fixture) -> None:
    build_id = it.submit()
    for _ in range(3):
        it.recorder.soon()
    it.clock.advance(AFTER_S / 2)
    assert it.written == []
    it.clock.advance(AFTER_S / 2)
    (decision,) = it.written
    assert (decision.build, decision.rule, decision.kind.value) == (build_id, "busy", "skip")
    assert (decision.text, decision.numbers) == ("why", {"fitting": 1})
    assert decision.at == it.clock.now()


def test_it_looks_again_no_more_often_than_every_few_seconds(it: Fixture) -> None:
    it.submit()
    it.recorder.soon()
    it.clock.advance(AFTER_S)
    it.recorder.soon()
    it.clock.advance(EVERY_S - 0.1)
    assert len(it.written) == 1
    it.clock.advance(0.1)
    assert len(it.written) == 2
    it.clock.advance(60)
    it.recorder.soon()
    it.clock.advance(AFTER_S)
    assert len(it.written) == 3


def test_a_build_that_has_just_come_is_not_passed_over_yet(it: Fixture) -> None:
    it.submit(age_s=AFTER_S / 2)
    it.recorder.record()
    assert (it.written, it.done_with) == ([], [])


@pytest.mark.parametrize("rule", ["free", "starting"])
def test_a_build_whose_instance_is_coming_is_not_passed_over(it: Fixture, rule: str) -> None:
    it.rule = rule
    build_id = it.submit()
    it.recorder.record()
    assert (it.written, it.done_with) == ([], [("build", build_id)])


def test_builds_of_one_kind_are_asked_about_once_and_those_to_be_retried_apart(
    it: Fixture,
) -> None:
    for _ in range(3):
        it.submit()
    it.submit(labels=["gpu"])
    it.submit(retried_in_s=60)
    it.recorder.record()
    assert it.asked == 3
    assert [each.rule for each in it.written] == ["busy"] * 4 + ["retry_backoff"]


def test_V15_what_no_longer_waits_is_forgotten(it: Fixture) -> None:
    it.submit()
    it.recorder.record()
    assert it.kept == {it.builds[0].id}
    it.builds.clear()
    it.recorder.record()
    assert it.kept == set()
