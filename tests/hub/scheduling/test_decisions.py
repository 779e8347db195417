"""What is written of a step: the decision in it, its rule, its numbers; and what is not done."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hostler_hub.lifecycle import Mode, Policy, State, Timer, Worker, events, step
from hostler_hub.lifecycle.model import OperatorLease
from hostler_hub.lifecycle.table import ROWS
from hostler_hub.runtime.virtual_clock import VirtualClock
from hostler_hub.scheduling.decision_log import PRUNE_S, DecisionLog
from hostler_hub.store import decisions as rows
from hostler_hub.store.decisions import Filter
from hostler_hub.store.engine import Store
from hostler_hub.workers import decisions
from hostler_hub.workers.decisions import Decision, DecisionKind, Transition, of_transition

ROOT = Path(__file__).resolve().parents[3]


class Life:
    """A worker, and what is said of each of its steps."""

    def __init__(self, **policy: Any) -> None:
        self.worker = Worker("w", Policy(**policy))
        self.at = 1000.0

    def happens(self, event: type[events.Event], **rest: Any) -> list[Decision]:
        self.at += 1
        made = event(at=self.at, **rest)
        before = self.worker
        self.worker, ordered = step(before, made)
        return of_transition(Transition(made, before, self.worker, ordered, "g"))

    def fires(self, timer: Timer) -> list[Decision]:
        self.at = self.worker.timers[timer] - 1
        return self.happens(events.TimerFired, timer=timer)

    def starts(self) -> None:
        self.happens(events.Wanted, instance="I", cause="build b")

    def attaches(self) -> None:
        epoch = self.worker.epoch
        self.happens(events.Attached, instance="I", epoch=epoch, connection="c", resumable=True)


def said(decisions: list[Decision]) -> list[tuple[str, str]]:
    return [(each.kind.value, each.rule) for each in decisions]


def test_a_start_says_for_which_build_and_on_which_numbers() -> None:
    because = events.Because("queued_work", "B1", {"queued": 3})
    (made,) = Life().happens(events.Wanted, instance="I", cause="build B1", because=because)
    assert (made.kind, made.rule, made.build) == (DecisionKind.START, "queued_work", "B1")
    assert (made.worker, made.group, made.text) == ("w", "g", "build B1")
    assert made.numbers == {"queued": 3, "epoch": 1}


def test_what_goes_with_its_last_lease_says_what_it_was_kept_for() -> None:
    life = Life()
    life.starts()
    life.attaches()
    lease = OperatorLease("L", "ann", asked_at=life.at, until=life.at + 60, ttl_s=60)
    life.happens(events.PersonAsked, lease=lease)
    assert said(life.happens(events.PersonLeft, lease="L", cause="released", keep=None)) == [
        ("stop", "lease_ended")
    ]
    life = Life()
    life.starts()
    life.attaches()
    left = life.happens(events.Detached, connection="c", cause="closed", leaves=True)
    assert said(left) == [("stop", "agent_left")]
    life = Life()
    life.starts()
    life.attaches()
    life.happens(events.Leased, lease="L")
    life.happens(events.ModeSet, mode=Mode.DRAINING, reason=None, by="ann")
    left = life.happens(events.Detached, connection="c", cause="closed", leaves=True)
    assert said(left) == [("stop", "drained")]


def test_every_way_to_stop_has_a_rule_that_is_documented() -> None:
    documented = (ROOT / "docs" / "howto-why.md").read_text()
    up = {State.SUBSTANTIATING, State.SUBSTANTIATED}
    ways = [row for row in ROWS if row.state in up and State.INSUBSTANTIATING in row.to]
    assert ways
    for row in ways:
        if row.timer is not None:
            rule = decisions.TIMERS[row.timer]
        elif row.event in {events.ModeSet, events.Released}:
            continue  # of a mode, and of what the release left
        else:
            rule = decisions.EVENTS[row.event]
        assert f"`{rule}`" in documented, row


def test_what_may_not_start_is_no_decision() -> None:
    life = Life()
    life.happens(events.ModeSet, mode=Mode.PAUSED, reason=None, by="a")
    assert life.happens(events.Wanted, instance="I", cause="build b") == []


def test_a_match_an_idle_stop_and_nothing_between() -> None:
    life = Life(build_wait_timeout_s=60.0)
    life.starts()
    life.attaches()
    because = events.Because("free_slot", "B1", {"waited_s": 0.5})
    (match,) = life.happens(events.Leased, lease="L", because=because)
    assert (match.rule, match.build, match.numbers) == ("free_slot", "B1", {"waited_s": 0.5})
    released = {"lease": "L", "finished": True, "clean": True, "cause": "done"}
    assert life.happens(events.Released, **released) == []
    (stop,) = life.fires(Timer.IDLE)
    assert (stop.kind, stop.rule) == (DecisionKind.STOP, "idle")
    assert stop.numbers["build_wait_timeout_s"] == 60.0


def test_a_failure_is_a_stop_and_a_quarantine() -> None:
    life = Life()
    life.starts()
    made = life.happens(events.CreateFailed, instance="I", error="no quota")
    assert said(made) == [("stop", "create_failed"), ("quarantine", "create_failed")]
    assert made[1].numbers == {"delay_s": 10.0}
    assert "no quota" in made[0].text


def test_the_rules_of_stops() -> None:
    life = Life()
    life.starts()
    assert said(life.fires(Timer.ATTACH)) == [
        ("stop", "not_attached"),
        ("quarantine", "not_attached"),
    ]
    life = Life()
    life.starts()
    life.attaches()
    (stop,) = life.happens(events.ModeSet, mode=Mode.STOPPED, reason="maintenance", by="ann")
    assert stop.rule == "mode_stopped"
    assert "ann" in stop.text
    assert "maintenance" in stop.text
    life = Life()
    life.starts()
    life.attaches()
    life.happens(events.Leased, lease="L")
    lost = life.happens(events.Compromised, instance="I", cause="token used twice")
    assert said(lost) == [("stop", "compromised"), ("quarantine", "compromised")]
    assert lost[0].numbers["leases_lost"] == 1


# --- the log ------------------------------------------------------------------------------------


def skip(rule: str, at: float = 1000.0, **rest: Any) -> Decision:
    return Decision(at=at, kind=DecisionKind.SKIP, rule=rule, text=f"because of {rule}", **rest)


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    async with Store(database_url, exclusive=True) as made:
        yield made


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(1000.0)


async def rules(decision_log: DecisionLog, where: Filter | None = None) -> list[str]:
    await decision_log.flush()
    page = await decision_log.page(where or Filter(), 100, None)
    return [each.rule for each in page.items]


async def test_a_skip_is_written_when_its_rule_changes(store: Store, clock: VirtualClock) -> None:
    decision_log = DecisionLog(store, clock, 3600.0, 1000)
    for rule in ("no_free_slot", "no_free_slot", "breaker", "breaker", "no_free_slot"):
        decision_log.skipped(("build", "b"), skip(rule, build="b"))
        decision_log.skipped(("build", "c"), skip("breaker", build="c"))
    assert await rules(decision_log, Filter(build="b")) == [
        "no_free_slot",
        "breaker",
        "no_free_slot",
    ]
    assert await rules(decision_log, Filter(build="c")) == ["breaker"]
    decision_log.done(("build", "b"))
    decision_log.keep("build", {"d"})
    for name in ("b", "c"):
        decision_log.skipped(("build", name), skip("breaker", build=name))
    assert len(await rules(decision_log)) == 6


async def test_pages_and_filters(store: Store, clock: VirtualClock) -> None:
    decision_log = DecisionLog(store, clock, 1e9, 1000)
    for number in range(5):
        kinds = {"worker": f"w{number % 2}", "group": "g"}
        decision_log.note(skip(f"r{number}", at=1000.0 + number, **kinds))
    await decision_log.flush()
    first = await decision_log.page(Filter(), 2, None)
    second = await decision_log.page(Filter(), 2, first.next)
    third = await decision_log.page(Filter(), 2, second.next)
    found = [each.rule for page in (first, second, third) for each in page.items]
    assert found == ["r4", "r3", "r2", "r1", "r0"]
    assert third.next is None
    assert await rules(decision_log, Filter(worker="w1")) == ["r3", "r1"]
    assert await rules(decision_log, Filter(worker="w0", since=1002.0)) == ["r4", "r2"]
    assert await rules(decision_log, Filter(group="h")) == []
    assert await rules(decision_log, Filter(kind="start")) == []


async def test_old_ones_and_too_many_are_forgotten(store: Store, clock: VirtualClock) -> None:
    decision_log = DecisionLog(store, clock, keep_s=100.0, keep_rows=3)
    await decision_log.flush()
    for number in range(6):
        decision_log.note(skip(f"r{number}", at=clock.now()))
    assert len(await rules(decision_log)) == 6  # it is not counted at every one
    clock.advance(PRUNE_S - 50)
    decision_log.note(skip("late", at=clock.now()))
    clock.advance(50)
    assert await rules(decision_log) == ["late"]
    for number in range(6):
        decision_log.note(skip(f"n{number}", at=clock.now()))
    clock.advance(PRUNE_S / 10)
    await decision_log.flush()
    clock.advance(PRUNE_S - PRUNE_S / 10)
    assert await rules(decision_log) == []


async def test_as_many_as_are_kept_are_the_newest(store: Store) -> None:
    await store.write(rows.append, [skip(f"r{number}").row() for number in range(10)])
    assert await store.write(rows.prune, before=0.0, rows=3) == 7
    left = await store.read(rows.page, Filter(), 100, None)
    assert [each.rule for each in left] == ["r9", "r8", "r7"]


async def test_V15_a_flood_of_skips_is_cut(store: Store, clock: VirtualClock) -> None:
    decision_log = DecisionLog(store, clock, 3600.0, 1_000_000)
    for number in range(120_000):
        decision_log.skipped(("build", number), skip("no_free_slot"))
    assert len(decision_log._rules) <= 100_000
    assert len(decision_log._waiting) == 20_000
