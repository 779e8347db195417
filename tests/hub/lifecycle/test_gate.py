"""The gate: nobody gets a slot of a machine before it was compared with what is expected of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from test_step import (
    POLICY,
    attached,
    drive,
    fired,
    kinds,
    latent,
    leased,
    mode,
    released,
    substantiated,
    substantiating,
    wanted,
)

from hostler_hub.lifecycle import (
    Gate,
    IllegalTransition,
    InvariantViolated,
    Mode,
    OperatorLease,
    State,
    Timer,
    Worker,
    check_transition,
    commands,
    events,
    step,
)
from hostler_hub.lifecycle.model import why_not_leasable

EXPECTS = "git >= 2.30"
DIFFERS = "not as expected: git: expected >=2.30 → found 2.20"


def examined(exam: int = 1, *, met: bool = True, at: float = 3) -> events.Examined:
    return events.Examined(at=at, exam=exam, met=met, cause="as expected" if met else DIFFERS)


def asked(**policy: Any) -> Worker:
    return substantiated(expects=EXPECTS, **policy)


def permanent(at: float = 2, **policy: Any) -> Worker:
    came = replace(attached(at), epoch=None)
    return drive(latent(permanent=True, expects=EXPECTS, **policy), came)[0]


def redefined(at: float = 4, **policy: Any) -> events.Redefined:
    return events.Redefined(at=at, policy=replace(POLICY, **policy), restart=False)


def test_V11_who_attaches_gets_nothing_before_its_machine_was_looked_at() -> None:
    worker, ordered = drive(substantiating(expects=EXPECTS), attached())
    assert commands.Examine("c1", 1, EXPECTS) in ordered
    assert worker.gate is Gate.ASKING
    assert "being compared" in (why_not_leasable(worker) or "")
    with pytest.raises(IllegalTransition, match="being compared"):
        step(worker, events.Leased(at=3, lease="L"))


def test_V11_a_lease_before_the_look_is_no_transition() -> None:
    worker = asked()
    with pytest.raises(InvariantViolated, match="V11"):
        check_transition(worker, replace(worker, leases=("L",)))


def test_nothing_is_asked_of_a_machine_of_which_nothing_is_expected() -> None:
    worker, ordered = drive(substantiating(), attached())
    assert worker.gate is Gate.OPEN
    assert "Examine" not in kinds(ordered)


def test_what_is_as_expected_is_offered() -> None:
    worker, ordered = drive(asked(), examined())
    assert why_not_leasable(worker) is None
    assert commands.OfferSlots() in ordered


def test_an_instance_is_not_idle_while_it_is_looked_at() -> None:
    """A build_wait_timeout of 0 would stop it before anybody knows what it is."""
    worker = asked(build_wait_timeout_s=0)
    assert worker.timers[Timer.IDLE] > 100
    worker, _ = drive(worker, examined())
    assert worker.timers[Timer.IDLE] == 8


def test_an_instance_that_differs_is_replaced_and_says_how() -> None:
    worker, ordered = drive(asked(), examined(met=False))
    assert worker.state is State.INSUBSTANTIATING
    assert commands.Destroy("I0", DIFFERS) in ordered
    assert (worker.quarantine_reason, worker.quarantine_until) == (DIFFERS, 13)
    assert worker.last_error == DIFFERS


def test_P8_a_start_that_attached_and_differed_is_a_failed_one_and_told_the_second_time() -> None:
    worker, _ = drive(asked(), examined(met=False), events.Destroyed(at=4, instance="I0"))
    assert worker.failed_starts == 1
    again = replace(attached(22), instance="I20", epoch=2)
    worker, _ = drive(worker, fired(Timer.QUARANTINE, 13), wanted(20), again)
    worker, ordered = drive(worker, examined(2, met=False, at=23))
    (told,) = [each for each in ordered if isinstance(each, commands.Notify)]
    assert (told.incident, DIFFERS in told.detail) == ("missing", True)
    assert worker.quarantine_until == 43


def test_V16_who_failed_twice_is_found_again_only_by_passing() -> None:
    """An attach alone says nothing: the incident would end and begin again with every start."""
    failing = replace(latent(expects=EXPECTS), failed_starts=2, missing_since=0.0)
    worker, ordered = drive(failing, wanted(), attached())
    assert (worker.missing_since, "Resolve" in kinds(ordered)) == (0, False)
    worker, ordered = drive(worker, examined())
    assert (worker.missing_since, worker.failed_starts) == (None, 0)
    assert commands.Resolve("missing", "its agent is attached") in ordered


def test_a_permanent_worker_that_differs_stays_attached_and_people_are_told() -> None:
    worker, ordered = drive(permanent(), examined(met=False))
    assert (worker.state, worker.attached, worker.gate) == (State.SUBSTANTIATED, True, Gate.SHUT)
    assert worker.quarantine_reason == DIFFERS
    assert commands.Notify("unfit", DIFFERS) in ordered


def test_resuming_after_a_repair_looks_again_rather_than_trusting() -> None:
    worker, _ = drive(permanent(), examined(met=False))
    worker, ordered = drive(worker, mode(Mode.ACTIVE))
    assert commands.Examine("c1", 2, EXPECTS) in ordered
    assert (worker.quarantine_until, worker.gate) == (None, Gate.ASKING)
    assert why_not_leasable(worker) is not None
    worker, ordered = drive(worker, examined(2, at=21))
    assert why_not_leasable(worker) is None
    assert [each.incident for each in ordered if isinstance(each, commands.Resolve)] == ["unfit"]


def test_the_end_of_a_quarantine_looks_again_and_its_doubling_is_kept() -> None:
    worker, _ = drive(permanent(), examined(met=False))
    worker, ordered = drive(worker, fired(Timer.QUARANTINE, 13))
    assert commands.Examine("c1", 2, EXPECTS) in ordered
    worker, _ = drive(worker, examined(2, met=False, at=14))
    assert worker.quarantine_until == 34


def test_a_reconnect_looks_again_and_takes_no_build_away() -> None:
    worker, _ = drive(asked(), examined(), events.Leased(at=4, lease="L0"))
    worker, ordered = drive(worker, attached(6, connection="c2"))
    assert commands.Examine("c2", 2, EXPECTS) in ordered
    assert worker.leases == ("L0",)
    worker, ordered = drive(worker, examined(2, met=False, at=7))
    assert (worker.state, worker.leases) == (State.SUBSTANTIATED, ("L0",))
    assert "Destroy" not in kinds(ordered)
    worker, ordered = drive(worker, released())
    assert worker.state is State.INSUBSTANTIATING


def test_K5_after_the_hub_s_restart_the_machine_is_looked_at_again() -> None:
    worker, _ = drive(asked(), examined())
    worker, _ = drive(replace(worker, connection=None, timers={}), events.Recovered(at=10))
    worker, ordered = drive(worker, attached(12, connection="c2"))
    assert "Examine" in kinds(ordered)
    assert why_not_leasable(worker) is not None


def test_A6_an_agent_that_dies_while_it_is_asked_is_an_agent_that_died() -> None:
    worker, _ = drive(asked(), events.Detached(at=3, connection="c1", cause="cut"))
    assert (worker.gate, worker.quarantine_until) == (Gate.OPEN, None)
    late, ordered = step(worker, examined(met=False, at=4))
    assert (late, ordered) == (worker, [])


def test_a_late_answer_says_nothing_about_who_is_attached_now() -> None:
    worker, _ = drive(asked(), attached(3, connection="c2"))
    late, ordered = step(worker, examined(1, met=True, at=4))
    assert (late, ordered) == (worker, [])


def test_A2_an_answer_after_the_order_to_go_changes_nothing() -> None:
    worker, _ = drive(asked(), mode(Mode.STOPPED))
    late, ordered = step(worker, examined(met=False, at=21))
    assert (late, ordered) == (worker, [])


def test_what_is_expected_may_change_while_an_agent_is_attached() -> None:
    worker, ordered = drive(substantiated(), redefined(expects=EXPECTS))
    assert commands.Examine("c1", 1, EXPECTS) in ordered
    worker, ordered = drive(worker, redefined(5, expects="svn"))
    assert commands.Examine("c1", 2, "svn") in ordered
    assert step(worker, examined(1, at=6)) == (worker, [])
    worker, _ = drive(worker, redefined(7))
    assert why_not_leasable(worker) is None


def test_a_definition_that_changes_in_other_things_is_no_reason_to_look() -> None:
    worker, _ = drive(asked(), examined())
    worker, ordered = drive(worker, redefined(expects=EXPECTS, max_builds=3))
    assert "Examine" not in kinds(ordered)
    assert why_not_leasable(worker) is None


def test_a_worker_of_which_nothing_is_expected_any_more_is_not_shut_for_ever() -> None:
    worker, _ = drive(permanent(), examined(met=False))
    worker, ordered = drive(worker, redefined(permanent=True))
    assert "unfit" in [each.incident for each in ordered if isinstance(each, commands.Resolve)]
    assert (worker.gate, worker.quarantine_until) == (Gate.OPEN, 13)
    worker, _ = drive(worker, fired(Timer.QUARANTINE, 13))
    assert why_not_leasable(worker) is None


def test_a_person_waits_for_the_look_too() -> None:
    lease = OperatorLease("P1", "ann", asked_at=3, until=63, ttl_s=300)
    worker, _ = drive(asked(), events.PersonAsked(at=3, lease=lease))
    assert worker.person is not None
    assert not worker.person.granted
    worker, _ = drive(worker, examined(at=4))
    assert worker.person is not None
    assert worker.person.granted


def test_a_build_that_runs_is_no_reason_to_trust_the_rest_of_the_slots() -> None:
    worker = leased(expects=None, leases=1)
    worker, _ = drive(worker, redefined(5, expects=EXPECTS))
    assert worker.free_slots == 1
    assert why_not_leasable(worker) is not None
