"""What a group's workers may do together: starts, idle instances, lost ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler_hub.lifecycle import Instance, Policy, State, Worker
from hostler_hub.scheduling.pool_key import PoolKey
from hostler_hub.scheduling.pools import BACK_S, HOLD_LONGEST_S, LOST_LEAST, Census, Pool, census
from hostler_hub.specs.group import GroupDefinition

NOW = 1_000_000.0


def life(name: str, state: State, **rest: Any) -> Worker:
    instance = None if state is State.LATENT else Instance("I", 1, {})
    connection = "c" if state is State.SUBSTANTIATED else None
    made = Worker(name, Policy(), state=state, instance=instance, epoch=1, connection=connection)
    return replace(made, **rest)


def counted(*lives: Worker) -> Census:
    return census([("g", each) for each in lives]).get("g", Census())


def pool(**group: Any) -> Pool:
    return Pool(PoolKey("g"), GroupDefinition.model_validate({"name": "g", **group}))


UP = [life(f"u{n}", State.SUBSTANTIATED) for n in range(3)]


# --- starts ---------------------------------------------------------


def test_what_is_not_proven_gone_counts_against_max_instances() -> None:
    there = counted(
        life("a", State.SUBSTANTIATED),
        life("b", State.SUBSTANTIATING),
        life("c", State.INSUBSTANTIATING),
        life("d", State.LATENT),
    )
    budget = pool(max_instances=4).budget(there, NOW)
    assert (budget.starts, budget.rule) == (1, "max_instances")
    assert budget.why == "group g: 3 of at most 4 instances"
    assert pool(max_instances=2).budget(there, NOW).starts == 0
    assert pool().budget(there, NOW).starts is None


def test_the_rule_that_allows_the_fewest_is_the_one_that_is_told() -> None:
    group = pool(max_instances=9, max_starting=2, max_starts_per_minute=5)
    there = counted(life("b", State.SUBSTANTIATING))
    assert group.budget(there, NOW).rule == "max_starting"
    for second in range(5):
        group.started(NOW + second)
    budget = group.budget(there, NOW + 30)
    assert (budget.starts, budget.rule, budget.until) == (0, "max_starts_per_minute", NOW + 60)
    assert group.budget(Census(), NOW + 61).starts == 2  # two of them are a minute ago: 2 at once


def test_A9_a_clock_that_is_set_back_does_not_keep_starts_back() -> None:
    group = pool(max_starts_per_minute=1)
    group.started(NOW)
    assert group.budget(Census(), NOW).starts == 0
    assert group.budget(Census(), NOW - 86400).starts == 1


# --- idle ones ---------------------------------------------------------


def test_min_idle_spares_the_last_ones_and_no_more() -> None:
    group = pool(min_idle=2)
    assert group.spared(counted(*UP), NOW) is None
    assert group.spared(counted(*UP[:2]), NOW) == "group g keeps 2 idle, and 2 are"


def test_two_that_may_go_at_once_are_not_taken_from_the_same_surplus() -> None:
    group = pool(min_idle=2)
    group.leaving.add("u0")  # allowed to stop, not yet committed
    assert group.spared(counted(*UP), NOW) is not None


def test_what_is_starting_counts_as_idle_to_be_and_what_is_used_does_not() -> None:
    group = pool(min_idle=3)
    there = counted(
        UP[0],
        replace(UP[1], leases=("L",)),
        life("s", State.SUBSTANTIATING),
        replace(UP[2], quarantine_until=NOW + 5),
    )
    assert group.missing_idle(there, NOW) == 1


def test_surplus_is_what_is_up_beyond_the_most() -> None:
    assert pool(max_instances=1).surplus(counted(*UP), NOW) == 2
    assert pool().surplus(counted(*UP), NOW) == 0


@given(
    states=st.lists(st.sampled_from(list(State)), max_size=8), after=st.sampled_from(list(State))
)
def test_counting_a_change_is_counting_anew(states: list[State], after: State) -> None:
    lives = [life(f"w{n}", state) for n, state in enumerate(states)] + [life("x", State.LATENT)]
    kept = counted(*lives)
    changed = life("x", after)
    kept.count(lives[-1], by=-1)
    kept.count(changed)
    assert kept == counted(*lives[:-1], changed)


# --- losses ---------------------------------------------------------


def lose(group: Pool, names: range, at: float) -> None:
    group.lost.update({f"u{n}": at for n in names})


@pytest.mark.parametrize(
    ("lost", "up", "hold"), [(LOST_LEAST - 2, 4, False), (4, 20, False), (10, 20, False)]
)
def test_A11_few_losses_hold_nothing(lost: int, up: int, hold: bool) -> None:
    group = pool()
    lose(group, range(lost), NOW)
    assert (group.mass_loss("z", Census(up=up), NOW) is not None) == hold


def test_A11_more_than_55_per_cent_within_a_minute_hold_until_they_are_back_or_too_long() -> None:
    group = pool()
    lose(group, range(11), NOW)
    assert group.mass_loss("z", Census(up=20), NOW + 59) == (12, 20)
    assert group.mass_loss("z", Census(up=20), NOW + 61) is None
    group.held_since = NOW
    assert group.held(Census(up=20, detached=12), NOW + 1)
    assert group.held(Census(up=20, detached=11), NOW + 2)  # the others are given time
    assert group.held(Census(up=20, detached=12), NOW + 3)
    assert group.held(Census(up=20, detached=11), NOW + 4)
    assert not group.held(Census(up=20, detached=11), NOW + 4 + BACK_S)
    group.held_since = NOW
    assert not group.held(Census(up=20, detached=12), NOW + HOLD_LONGEST_S)
