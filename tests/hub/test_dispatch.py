"""The choice of workers for builds, and the reasons given for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler_hub.dispatch import Candidate, Waiting, explain, mismatches, plan
from hostler_hub.lifecycle import Instance, Mode, Policy, State, Worker
from hostler_hub.specs import BuildSpec, Requirements


def build(name: str, **requires: Any) -> Waiting:
    spec = BuildSpec.model_validate(
        {"requires": requires, "steps": [{"name": "s", "command": ["true"]}]}
    )
    return Waiting(name, spec, 0, 0)


def latent(name: str, *, slots: int = 1, **traits: Any) -> Candidate:
    life = Worker(name, Policy(max_builds=slots))
    labels = frozenset(traits.get("labels", ()))
    return Candidate(life, traits.get("driver", "fake"), labels, traits.get("properties", {}))


def up(name: str, *, slots: int = 1, leases: int = 0, **traits: Any) -> Candidate:
    candidate = latent(name, slots=slots, **traits)
    life = replace(
        candidate.life,
        state=State.SUBSTANTIATED,
        epoch=1,
        instance=Instance("I", 1, {}),
        connection="c",
        leases=tuple(f"L{number}" for number in range(leases)),
    )
    return replace(candidate, life=life)


def starting(name: str, *, slots: int = 1) -> Candidate:
    candidate = up(name, slots=slots)
    life = replace(candidate.life, state=State.SUBSTANTIATING, connection=None)
    return replace(candidate, life=life)


def leased(queue: list[Waiting], workers: list[Candidate]) -> list[tuple[str, str]]:
    return [(build.id, worker) for build, worker in plan(queue, workers).leases]


def test_earlier_builds_get_the_slots_and_a_slot_goes_once() -> None:
    assert leased([build("b1"), build("b2")], [up("w1")]) == [("b1", "w1")]
    assert leased([build("b1"), build("b2")], [up("w1", slots=2)]) == [("b1", "w1"), ("b2", "w1")]


def test_a_free_slot_is_better_than_a_start() -> None:
    made = plan([build("b1")], [latent("w1"), up("w2")])
    assert made.wanted == []
    assert [worker for _, worker in made.leases] == ["w2"]


def test_each_build_without_a_slot_wakes_one_worker_and_a_booting_one_counts() -> None:
    queue = [build(f"b{n}") for n in range(4)]
    made = plan(queue, [starting("w0"), latent("w1"), latent("w2", slots=2)])
    assert made.wanted == [("w1", "b1"), ("w2", "b2")]
    assert made.leases == []


def test_a_long_queue_is_read_only_as_far_as_there_are_slots() -> None:
    queue = iter([build(f"b{n}") for n in range(9)])
    made = plan(queue, [up("w1", slots=2), latent("w2"), up("w3", leases=1)])
    assert len(made.leases) + len(made.wanted) == 3
    assert len(list(queue)) == 5  # the fourth was taken up to find that nothing was left


def test_a_build_that_fits_nothing_does_not_hold_up_the_others() -> None:
    queue = [build("b1", labels=["gpu"]), build("b2")]
    assert leased(queue, [up("w1")]) == [("b2", "w1")]


@pytest.mark.parametrize("mode", [Mode.PAUSED, Mode.DRAINING, Mode.STOPPED])
def test_V11_an_inactive_worker_gets_nothing(mode: Mode) -> None:
    paused = up("w1")
    paused = replace(paused, life=replace(paused.life, mode=mode))
    asleep = latent("w2")
    asleep = replace(asleep, life=replace(asleep.life, mode=mode))
    made = plan([build("b1")], [paused, asleep])
    assert (made.leases, made.wanted) == ([], [])


def test_requirements_and_what_is_said_of_them() -> None:
    candidate = up("w1", labels=["linux"], properties={"os_id": "debian", "cores": 8})
    assert mismatches(Requirements(labels=("linux",), properties={"cores": 8}), candidate) == []
    asked = Requirements(
        worker="w2", driver="ec2", labels=("gpu",), properties={"os_id": "alpine", "x": 1}
    )
    assert mismatches(asked, candidate) == [
        "the build asks for worker w2",
        "its driver is fake, not ec2",
        "it has no label gpu",
        "its property os_id is 'debian', not 'alpine'",
        "its property x is not set, not 1",
    ]


def test_why_names_each_worker_s_reason() -> None:
    paused = up("w1")
    paused = replace(paused, life=replace(paused.life, mode=Mode.PAUSED, mode_reason="patching"))
    full = up("w2", leases=1)
    reasons = explain(build("b1"), [paused, full, latent("w3")])
    assert reasons == {
        "w1": ["it is paused: patching"],
        "w2": ["all 1 of its slots are leased"],
        "w3": ["it is latent"],
    }


WORKERS = st.lists(
    st.tuples(st.sampled_from(["up", "latent", "starting"]), st.integers(1, 3)), max_size=6
)


@given(workers=WORKERS, builds=st.integers(0, 12))
def test_no_slot_is_given_twice_and_none_is_left_free(
    workers: list[tuple[str, int]], builds: int
) -> None:
    make = {"up": up, "latent": latent, "starting": starting}
    candidates = [make[kind](f"w{n}", slots=slots) for n, (kind, slots) in enumerate(workers)]
    made = plan([build(f"b{n:02d}") for n in range(builds)], candidates)
    given_to = [worker for _, worker in made.leases]
    free = sum(slots for kind, slots in workers if kind == "up")
    assert len(given_to) == min(builds, free)
    for candidate in candidates:
        assert given_to.count(candidate.life.name) <= candidate.life.free_slots
    assert len({worker for worker, _ in made.wanted}) == len(made.wanted)
    coming = sum(slots for kind, slots in workers if kind == "starting")
    if builds > free + coming:
        asleep = [slots for kind, slots in workers if kind == "latent"]
        assert bool(made.wanted) == bool(asleep)
