"""The choice of workers for builds: pure, so that any fleet and any queue can be tried."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler_hub.lifecycle import Instance, Mode, Policy, State, Worker
from hostler_hub.runtime.ids import earliest_ulid
from hostler_hub.scheduling.matching import Matcher, Traits, fits
from hostler_hub.scheduling.planner import (
    Budget,
    Candidate,
    Plan,
    Shares,
    Snapshot,
    Waiting,
    plan,
    starving,
)
from hostler_hub.scheduling.pool_key import PoolKey
from hostler_hub.specs.build import BuildSpec


def build(name: str, priority: int = 0, **requires: Any) -> Waiting:
    spec = BuildSpec.model_validate(
        {"requires": requires, "steps": [{"name": "s", "command": ["true"]}]}
    )
    return Waiting(name, spec, 0, priority)


def latent(name: str, *, slots: int = 1, **rest: Any) -> Candidate:
    labels = frozenset(rest.pop("labels", ()))
    traits = Traits(name, rest.pop("driver", "fake"), labels, rest.pop("properties", {}))
    return Candidate(Worker(name, Policy(max_builds=slots)), traits, **rest)


def up(name: str, *, slots: int = 1, leases: int = 0, **rest: Any) -> Candidate:
    candidate = latent(name, slots=slots, **rest)
    life = replace(
        candidate.life,
        state=State.SUBSTANTIATED,
        epoch=1,
        instance=Instance("I", 1, {}),
        connection="c",
        leases=tuple(f"L{number}" for number in range(leases)),
    )
    return replace(candidate, life=life)


def starting(name: str, *, slots: int = 1, **rest: Any) -> Candidate:
    candidate = up(name, slots=slots, **rest)
    life = replace(candidate.life, state=State.SUBSTANTIATING, connection=None)
    return replace(candidate, life=life)


def look(workers: list[Candidate], **rest: Any) -> Snapshot:
    return Snapshot(workers, Matcher([each.traits for each in workers]), **rest)


def planned(queue: list[Waiting], workers: list[Candidate], **rest: Any) -> Plan:
    return plan(queue, look(workers, **rest))


def leased(queue: list[Waiting], workers: list[Candidate], **rest: Any) -> list[tuple[str, str]]:
    return [(build.id, worker) for build, worker in planned(queue, workers, **rest).leases]


def wanted(made: Plan) -> list[tuple[str, str]]:
    return [(worker, build.id) for worker, build in made.wanted]


def test_earlier_builds_get_the_slots_and_a_slot_goes_once() -> None:
    assert leased([build("b1"), build("b2")], [up("w1")]) == [("b1", "w1")]
    assert leased([build("b1"), build("b2")], [up("w1", slots=2)]) == [("b1", "w1"), ("b2", "w1")]


def test_a_free_slot_is_better_than_a_start() -> None:
    made = planned([build("b1")], [latent("w1", priority=9), up("w2")])
    assert made.wanted == []
    assert [worker for _, worker in made.leases] == ["w2"]


def test_each_build_without_a_slot_wakes_one_worker_and_a_booting_one_counts() -> None:
    queue = [build(f"b{n}") for n in range(5)]
    made = planned(queue, [starting("w0"), latent("w1"), latent("w2", slots=2), latent("w3")])
    # b3 takes the second slot of w2.
    assert wanted(made) == [("w1", "b1"), ("w2", "b2"), ("w3", "b4")]
    assert made.leases == []


def test_a_long_queue_is_read_only_as_far_as_there_are_slots() -> None:
    queue = iter([build(f"b{n}") for n in range(9)])
    made = plan(queue, look([up("w1", slots=2), latent("w2"), up("w3", leases=1)]))
    assert len(made.leases) + len(made.wanted) == 3
    assert len(list(queue)) == 6


def test_a_build_that_fits_nothing_does_not_hold_up_the_others() -> None:
    queue = [build("b1", labels=["gpu"]), build("b2")]
    assert leased(queue, [up("w1")]) == [("b2", "w1")]


@pytest.mark.parametrize("mode", [Mode.PAUSED, Mode.DRAINING, Mode.STOPPED])
def test_V11_an_inactive_worker_gets_nothing(mode: Mode) -> None:
    paused = up("w1")
    paused = replace(paused, life=replace(paused.life, mode=mode))
    asleep = latent("w2")
    asleep = replace(asleep, life=replace(asleep.life, mode=mode))
    made = planned([build("b1")], [paused, asleep])
    assert (made.leases, made.wanted) == ([], [])


# --- which worker --------------------------------------------------------------------------------


def test_the_higher_priority_is_used_and_started_first() -> None:
    workers = [up("w1"), up("w2", priority=1), latent("w3", priority=-1), latent("w4")]
    made = planned([build(f"b{n}") for n in range(4)], workers)
    assert [worker for _, worker in made.leases] == ["w2", "w1"]
    assert [worker for worker, _ in made.wanted] == ["w4", "w3"]


def test_weights_share_out_among_equals_in_one_look() -> None:
    workers = [up("w1", slots=8, weight=3.0), up("w2", slots=8)]
    names = [worker for _, worker in leased([build(f"b{n}") for n in range(8)], workers)]
    assert (names.count("w1"), names.count("w2")) == (6, 2)


def test_weights_share_out_among_equals_over_many_looks() -> None:
    shares = Shares()
    workers = [up("w1", weight=3.0), up("w2")]
    given_to = []
    for number in range(40):
        ((_, name),) = leased([build(f"b{number}")], workers, shares=shares)
        shares.charge(name, 3.0 if name == "w1" else 1.0)
        given_to.append(name)
    assert (given_to.count("w1"), given_to.count("w2")) == (30, 10)


def test_a_worker_that_was_away_is_not_owed_what_it_missed() -> None:
    shares = Shares()
    for _ in range(100):
        shares.charge("w1", 1.0)
    names = []
    for _ in range(4):
        ((_, name),) = leased([build("b")], [up("w1"), up("w2")], shares=shares)
        shares.charge(name, 1.0)
        names.append(name)
    assert sorted(names) == ["w1", "w1", "w2", "w2"]
    shares.keep(["w2"])
    assert shares.of("w1") <= shares.of("w2")


# --- pools ---------------------------------------------------------------------------------------

P, Q = PoolKey("p"), PoolKey("q", is_group=False)


def test_no_more_is_started_than_the_pool_may() -> None:
    workers = [latent(f"w{n}", limits=(P,)) for n in range(4)] + [latent("x1", limits=(Q,))]
    queue = [build(f"b{n}") for n in range(5)]
    made = planned(queue, workers, budgets={P: Budget(2, "max_instances"), Q: Budget()})
    assert wanted(made) == [("w0", "b0"), ("w1", "b1"), ("x1", "b2")]


def test_what_a_pool_may_not_start_it_may_still_use() -> None:
    workers = [up("w1", limits=(P,)), latent("w2", limits=(P,))]
    made = planned([build("b1"), build("b2")], workers, budgets={P: Budget(0, "breaker")})
    assert [worker for _, worker in made.leases] == ["w1"]
    assert made.wanted == []


# --- fairness ------------------------------------------------------------------------------------

NOW = 1_700_000_000.0


def aged(hours: float, suffix: int, priority: int = 0) -> Waiting:
    made = earliest_ulid(int((NOW - hours * 3600) * 1000))[:-3] + f"{suffix:03d}"
    return build(made, priority)


def test_every_fourth_slot_goes_to_the_longest_waiting_after_an_hour() -> None:
    young = [aged(0.1, n, priority=5) for n in range(20)]
    old = [aged(2, 1), aged(3, 2)]
    queue = sorted([*young, *old], key=lambda each: each.order)
    oldest = starving(queue, NOW)
    assert [each.id for each in oldest] == [old[1].id, old[0].id]
    made = plan(queue, look([up("w", slots=8)]), oldest)
    ids = [each.id for each, _ in made.leases]
    assert (ids[3], ids[7]) == (old[1].id, old[0].id)
    assert [each.id for each, _ in made.leases if each in young] == [b.id for b in young[:6]]


def test_a_turn_is_kept_until_somebody_can_take_it() -> None:
    hopeless = build(aged(9, 1).id, labels=["gpu"])
    old, young = aged(2, 2), aged(0.1, 3, priority=5)
    queue = [young, hopeless, old]
    made = plan(queue, look([up("w")], turn=3), starving(queue, NOW))
    assert [each.id for each, _ in made.leases] == [old.id]
    made = plan(queue, look([up("w")], turn=2), starving(queue, NOW))
    assert [each.id for each, _ in made.leases] == [young.id]


def test_within_an_hour_priority_is_all_that_counts() -> None:
    queue = [aged(0.1, 1, priority=1), aged(0.9, 2)]
    assert starving(queue, NOW) == []


# --- any fleet, any queue ------------------------------------------------------------------------

LABELS = st.sets(st.sampled_from(["a", "b"]), max_size=2)


@st.composite
def fleets(draw: st.DrawFn) -> list[Candidate]:
    """Workers in any state, of two pools."""
    made = []
    for number in range(draw(st.integers(0, 7))):
        make = draw(st.sampled_from([up, latent, starting]))
        slots = draw(st.integers(1, 3))
        candidate = make(
            f"w{number}",
            slots=slots,
            labels=draw(LABELS),
            properties={"memory_mb": draw(st.sampled_from([4000, 8000]))},
            limits=(draw(st.sampled_from([P, Q])),),
            priority=draw(st.integers(-1, 1)),
            weight=draw(st.sampled_from([0.5, 1.0, 3.0])),
        )
        held = draw(st.integers(0, slots)) if make is up else 0
        life = replace(
            candidate.life,
            leases=tuple(f"L{each}" for each in range(held)),
            mode=draw(st.sampled_from([Mode.ACTIVE, Mode.ACTIVE, Mode.PAUSED, Mode.DRAINING])),
            quarantine_until=draw(st.sampled_from([None, None, 5.0])),
            tainted=make is up and draw(st.booleans()),
        )
        made.append(replace(candidate, life=life))
    return made


@st.composite
def queues(draw: st.DrawFn) -> list[Waiting]:
    made = []
    for number in range(draw(st.integers(0, 10))):
        facts = draw(st.sampled_from([[], ["memory_mb >= 8000"]]))
        requires = {"labels": sorted(draw(LABELS)), "facts": facts}
        made.append(build(f"b{number:02d}", draw(st.integers(0, 2)), **requires))
    return sorted(made, key=lambda each: each.order)


BUDGETS = st.fixed_dictionaries(
    {pool: st.sampled_from([Budget(), Budget(0), Budget(1), Budget(2)]) for pool in (P, Q)}
)


@given(workers=fleets(), queue=queues(), budgets=BUDGETS, turn=st.integers(0, 3))
def test_whatever_the_fleet_the_plan_may_be_carried_out(
    workers: list[Candidate], queue: list[Waiting], budgets: dict[PoolKey, Budget], turn: int
) -> None:
    by_name = {each.life.name: each for each in workers}
    made = plan(queue, look(workers, budgets=budgets, turn=turn), queue[:2])
    builds = [each.id for each, _ in made.leases] + [each.id for _, each in made.wanted]
    assert len(set(builds)) == len(builds), "a build twice"
    given_to = [worker for _, worker in made.leases]
    for each, name in made.leases:
        life = by_name[name].life
        assert fits(each.spec.requires, by_name[name].traits)
        assert (life.state, life.mode, life.tainted) == (State.SUBSTANTIATED, Mode.ACTIVE, False)
        assert life.quarantine_until is None
        assert given_to.count(name) <= life.free_slots
    started = [by_name[name] for name, _ in made.wanted]
    assert len({each.life.name for each in started}) == len(started)
    for candidate in started:
        assert candidate.life.state is State.LATENT
        assert candidate.life.mode is Mode.ACTIVE
        assert candidate.life.quarantine_until is None
    for pool, budget in budgets.items():
        starts = sum(each.limits == (pool,) for each in started)
        assert budget.starts is None or starts <= budget.starts


@given(workers=fleets(), queue=queues())
def test_no_build_waits_behind_a_later_one_for_a_slot_it_fits(
    workers: list[Candidate], queue: list[Waiting]
) -> None:
    """Priority is respected, and no usable slot stays free."""
    by_name = {each.life.name: each for each in workers}
    made = planned(queue, workers)
    taken = {each.id for each, _ in made.leases}
    left = {
        each.life.name: each.life.free_slots
        - sum(name == each.life.name for _, name in made.leases)
        for each in workers
        if each.life.state is State.SUBSTANTIATED
        and each.life.mode is Mode.ACTIVE
        and not each.life.tainted
        and each.life.quarantine_until is None
    }
    for index, waiting in enumerate(queue):
        if waiting.id in taken:
            continue
        fitting = {name for name in by_name if fits(waiting.spec.requires, by_name[name].traits)}
        assert not any(left.get(name, 0) for name in fitting)
        for later, name in made.leases:
            assert later in queue[:index] or name not in fitting


@given(workers=fleets(), queue=queues())
def test_the_same_look_makes_the_same_plan(workers: list[Candidate], queue: list[Waiting]) -> None:
    one, other = planned(queue, workers), planned(queue, workers[::-1])
    assert (one.leases, one.wanted) == (other.leases, other.wanted)


def test_V19_each_budget_of_a_worker_limits_its_start_and_no_other_s() -> None:
    host = ("host h", "probe")
    workers = [latent("a1", limits=(P, host)), latent("a2", limits=(P, host))]
    workers.append(latent("b1", limits=(P,)))
    queue = [build(f"b{n}") for n in range(4)]
    made = planned(queue, workers, budgets={host: Budget(1, "breaker"), P: Budget(2)})
    assert sorted(name for name, _ in made.wanted) == ["a1", "b1"]
    made = planned(queue, workers, budgets={host: Budget(0, "breaker"), P: Budget(None)})
    assert [name for name, _ in made.wanted] == ["b1"]
