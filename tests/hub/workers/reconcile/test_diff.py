"""The comparison of a provider's list with the ledger."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from hostler_hub.drivers.contract import Owned
from hostler_hub.workers.reconcile.diff import (
    Action,
    DriftKind,
    Expected,
    Finding,
    Seen,
    compare,
    still_waiting,
)

AT = 10_000.0


def expected(instance: str, **changes: Any) -> Expected:
    known = {"settled": True, "attached": False, "has_handle": True, **changes}
    return Expected(f"worker-of-{instance}", instance, 1, **known)


def owned(instance: str, spare: str = "") -> Owned:
    return Owned(instance, 1, {"version": 1}, "w", f"name of {instance}", spare=spare)


def look(
    listed: list[str],
    own: list[Expected],
    ended: dict[str, float | None] | None = None,
    since: dict[str, float] | None = None,
    confirmed: bool = False,
) -> list[tuple[str, DriftKind, Action]]:
    seen = Seen(AT, [owned(each) for each in listed], own, ended or {})
    found = compare(seen, since or {}, confirmed=confirmed)
    return [(each.instance, each.kind, each.action) for each in found]


def test_both_sides_agree() -> None:
    assert look(["a"], [expected("a")]) == []


def test_V2_what_the_ledger_saw_end_is_destroyed() -> None:
    assert look(["a"], [], {"a": AT - 1}) == [("a", DriftKind.ORPHAN, Action.DESTROY)]


@pytest.mark.parametrize("ended", [{}, {"a": AT - 1}, {"a": None}])
@pytest.mark.parametrize("confirmed", [False, True])
def test_V2_what_only_carries_a_mark_is_reported_and_never_touched(
    ended: dict[str, float | None], confirmed: bool
) -> None:
    copy = replace(owned("a"), copy="its labels are those of its image")
    (found,) = compare(Seen(AT, [copy], [], ended), {}, confirmed=confirmed)
    assert (found.kind, found.action) == (DriftKind.COPY, Action.REPORT)
    assert found.reason == (
        "it only carries the mark of an instance of w: its labels are those of its image"
    )
    assert still_waiting([found], {}, AT) == {}


def test_K3_a_copy_is_neither_adopted_nor_proof_that_its_original_is_gone() -> None:
    copy = replace(owned("a"), copy="another made it")
    lost = expected("a", has_handle=False)
    seen = Seen(AT, [copy], [lost], {})
    (found,) = compare(seen, {"a": 0.0}, confirmed=True)
    assert (found.kind, found.action) == (DriftKind.COPY, Action.REPORT)
    beside = Seen(AT, [owned("a"), copy], [lost], {})
    kinds = [each.kind for each in compare(beside, {}, confirmed=False)]
    assert kinds == [DriftKind.COPY, DriftKind.UNRECORDED]


def spares(ended: dict[str, float | None], kept: set[str]) -> list[tuple[DriftKind, Action]]:
    seen = Seen(AT, [owned("a", spare="recipe")], [], ended, kept)
    return [(each.kind, each.action) for each in compare(seen, {}, confirmed=False)]


def test_V2_a_stopped_machine_is_destroyed_unless_its_worker_keeps_it() -> None:
    assert spares({"a": AT - 1}, {"a"}) == []
    assert spares({"a": AT - 1}, set()) == [(DriftKind.SPARE, Action.DESTROY)]
    assert spares({"a": AT + 1}, set()) == [], "it was stopped while we looked"


def test_P18_a_stopped_machine_of_an_instance_nobody_heard_of_is_held_unless_kept() -> None:
    assert spares({}, {"a"}) == []
    assert spares({}, set()) == [(DriftKind.UNKNOWN, Action.HOLD)]


def test_what_ends_while_we_look_is_left_for_the_next_pass() -> None:
    assert look(["a", "b"], [], {"a": AT + 1, "b": None}) == []


@pytest.mark.parametrize(
    ("since", "confirmed", "action"),
    [
        ({}, False, Action.HOLD),
        ({"a": AT - 3599}, False, Action.HOLD),
        ({"a": AT - 3600}, False, Action.DESTROY),
        ({}, True, Action.DESTROY),
    ],
)
def test_P18_what_the_ledger_never_heard_of_is_held(
    since: dict[str, float], confirmed: bool, action: Action
) -> None:
    assert look(["a"], [], since=since, confirmed=confirmed) == [("a", DriftKind.UNKNOWN, action)]


def test_K3_an_instance_without_its_handle_is_adopted() -> None:
    found = look(["a", "b"], [expected("a", has_handle=False), expected("b")])
    assert found == [("a", DriftKind.UNRECORDED, Action.ADOPT)]


def test_P6_absent_is_gone_only_after_two_looks_a_minute_apart() -> None:
    own = [expected("a")]
    assert look([], own) == [("a", DriftKind.ABSENT, Action.WAIT)]
    assert look([], own, since={"a": AT - 59}) == [("a", DriftKind.ABSENT, Action.WAIT)]
    assert look([], own, since={"a": AT - 60}) == [("a", DriftKind.ABSENT, Action.GIVE_UP)]


@pytest.mark.parametrize("change", [{"attached": True}, {"settled": False}])
def test_an_attached_agent_and_a_call_under_way_say_more_than_a_list(
    change: dict[str, bool],
) -> None:
    assert look([], [expected("a", **change)], since={"a": 0.0}) == []


def test_P6_a_fifth_of_the_fleet_does_not_vanish_at_once() -> None:
    own = [expected(f"i{number}") for number in range(10)]
    listed = [each.instance for each in own[3:]]
    since = dict.fromkeys(("i0", "i1", "i2"), 0.0)
    held = [(name, DriftKind.ABSENT, Action.HOLD) for name in since]
    assert look(listed, own, since=since) == held
    gone = [(name, DriftKind.ABSENT, Action.GIVE_UP) for name in since]
    assert look(listed, own, since=since, confirmed=True) == gone
    two = {"i1": 0.0, "i2": 0.0}
    few = look(["i0", *listed], own, since=two)
    assert [action for _, _, action in few] == [Action.GIVE_UP, Action.GIVE_UP]


def test_the_memory_keeps_what_waits_and_when_it_began() -> None:
    seen = Seen(AT, [owned("x")], [expected("a"), expected("b")], {})
    found = compare(seen, {"a": AT - 10, "gone meanwhile": 1.0}, confirmed=False)
    assert still_waiting(found, {"a": AT - 10}, AT) == {"x": AT, "a": AT - 10, "b": AT}


def test_a_finding_has_the_name_people_know() -> None:
    named = Finding(DriftKind.ORPHAN, Action.DESTROY, "I", 1, "w", "", owned("I"))
    assert named.name == "name of I"
    assert Finding(DriftKind.ABSENT, Action.WAIT, "I", 1, "w", "").name == "I"
