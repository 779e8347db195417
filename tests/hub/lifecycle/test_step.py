"""Every (state, event) pair of the table, one worker at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from hostler_hub.lifecycle import (
    IllegalTransition,
    Mode,
    Policy,
    Presence,
    State,
    Timer,
    Worker,
    actions,
    check,
    check_transition,
    commands,
    events,
    step,
)
from hostler_hub.lifecycle.jitter import delay_to_next_s
from hostler_hub.lifecycle.model import why_not_leasable
from hostler_hub.lifecycle.table import ROWS, TABLE

POLICY = Policy(
    build_wait_timeout_s=600, missing_timeout_s=120, check_instance_interval_s=10, max_builds=2
)


def drive(worker: Worker, *happened: events.Event) -> tuple[Worker, list[commands.Command]]:
    """Apply events in order, checking the invariants after each; the last step's commands."""
    ordered: list[commands.Command] = []
    for event in happened:
        before = worker
        worker, ordered = step(worker, event)
        check(worker)
        check_transition(before, worker)
    return worker, ordered


def latent(**policy: Any) -> Worker:
    return Worker("w", replace(POLICY, **policy))


def wanted(at: float = 0) -> events.Wanted:
    return events.Wanted(at=at, instance=f"I{at}", cause="build B")


def attached(at: float = 2, *, connection: str = "c1", resumable: bool = True) -> events.Attached:
    return events.Attached(
        at=at, instance="I0", epoch=1, connection=connection, resumable=resumable
    )


def substantiating(**policy: Any) -> Worker:
    return drive(latent(**policy), wanted())[0]


def substantiated(**policy: Any) -> Worker:
    created = events.Created(at=1, instance="I0", handle={"pid": 1})
    return drive(substantiating(**policy), created, attached())[0]


def leased(*, leases: int = 1, **policy: Any) -> Worker:
    taken = [events.Leased(at=3, lease=f"L{number}") for number in range(leases)]
    return drive(substantiated(**policy), *taken)[0]


def insubstantiating(**policy: Any) -> Worker:
    return drive(substantiated(**policy), events.Unwanted(at=5, cause="test"))[0]


def released(lease: str = "L0", *, at: float = 9, finished: bool = True, clean: bool = True) -> Any:
    return events.Released(at=at, lease=lease, finished=finished, clean=clean, cause="why")


def mode(value: Mode, at: float = 20) -> events.ModeSet:
    return events.ModeSet(at=at, mode=value, reason="because", by="ann")


def fired(timer: Timer, at: float) -> events.TimerFired:
    return events.TimerFired(at=at, timer=timer)


def kinds(ordered: list[commands.Command]) -> list[str]:
    return [type(command).__name__ for command in ordered]


# --- coming up ---------------------------------------------------------------------------------


def test_wanted_starts_a_latent_worker_with_a_new_epoch_and_a_deadline() -> None:
    worker, ordered = drive(latent(), wanted())
    assert worker.state is State.SUBSTANTIATING
    assert worker.epoch == 1
    assert ordered[0] == commands.Create("I0", 1)
    assert worker.timers == {Timer.ATTACH: 120, Timer.CHECK: delay_to_next_s("I0", 0, 10)}


@pytest.mark.parametrize("value", [Mode.PAUSED, Mode.DRAINING, Mode.STOPPED])
def test_V11_an_inactive_worker_does_not_start(value: Mode) -> None:
    worker, ordered = drive(latent(), mode(value, 0), wanted(1))
    assert worker.state is State.LATENT
    assert ordered == []


def test_P12_a_second_want_makes_no_second_create() -> None:
    worker, ordered = drive(substantiating(), wanted(1))
    assert worker.instance is not None
    assert worker.instance.id == "I0"
    assert ordered == []


def test_A1_the_agent_may_attach_before_the_create_returned() -> None:
    worker, ordered = drive(substantiating(), attached())
    assert worker.state is State.SUBSTANTIATED
    assert commands.OfferSlots() in ordered
    late = events.Created(at=3, instance="I0", handle={"pid": 7})
    assert drive(worker, late)[0].instance.handle == {"pid": 7}  # type: ignore[union-attr]


def test_A3_a_stale_epoch_is_sent_away_and_changes_nothing() -> None:
    worker = substantiating()
    stale = events.Attached(at=2, instance="OLD", epoch=0, connection="x", resumable=True)
    after, ordered = step(worker, stale)
    assert after is worker
    assert kinds(ordered) == ["SendAway"]


def test_P1_a_failed_create_is_destroyed_before_the_worker_is_latent_again() -> None:
    failed = events.CreateFailed(at=1, instance="I0", error="504")
    worker, ordered = drive(substantiating(), failed)
    assert worker.state is State.INSUBSTANTIATING
    assert commands.Destroy("I0", "create failed: 504") in ordered
    assert worker.quarantine_until == 11
    assert worker.last_error == "504"


def test_P1_a_create_that_failed_but_was_done_does_not_disturb_the_attached_agent() -> None:
    failed = events.CreateFailed(at=3, instance="I0", error="504")
    worker, ordered = drive(substantiating(), attached(), failed)
    assert worker.state is State.SUBSTANTIATED
    assert ordered == []


def test_P8_an_agent_that_never_attaches_is_stopped_missing_and_quarantined() -> None:
    worker, ordered = drive(substantiating(), fired(Timer.ATTACH, 120))
    assert worker.state is State.INSUBSTANTIATING
    assert worker.missing_since == 120
    assert worker.quarantine_until == 130
    assert "Destroy" in kinds(ordered)
    assert "Notify" not in kinds(ordered)


def start_again(worker: Worker, at: float) -> Worker:
    """From a start that failed to the next one; the instance is I<at>."""
    assert worker.instance is not None
    gone = events.Destroyed(at=at - 1, instance=worker.instance.id)
    return drive(worker, gone, mode(Mode.ACTIVE, at - 1), wanted(at))[0]


def test_P8_people_are_told_when_an_agent_has_not_attached_twice_in_a_row() -> None:
    first, _ = drive(substantiating(), fired(Timer.ATTACH, 120))
    again, ordered = drive(start_again(first, 200), fired(Timer.ATTACH, 320))
    assert again.missing_since == 120
    assert [each for each in ordered if isinstance(each, commands.Notify)] == [
        commands.Notify(
            "missing",
            "2 starts in a row have failed, the last one: its agent did not attach within 120 s",
        )
    ]


def test_a_start_that_fails_twice_in_a_row_makes_the_worker_missing() -> None:
    first, ordered = drive(
        substantiating(), events.CreateFailed(at=1, instance="I0", error="no capacity")
    )
    assert first.missing_since is None
    assert "Notify" not in kinds(ordered)
    booting = drive(start_again(first, 200), events.Created(at=201, instance="I200", handle={}))[0]
    died = events.Inspected(at=210, instance="I200", presence=Presence.GONE, evidence="exit 1")
    second, ordered = drive(booting, died)
    assert second.missing_since == 210
    assert "Notify" in kinds(ordered)


def test_a_start_that_succeeds_begins_the_count_anew() -> None:
    first, _ = drive(substantiating(), fired(Timer.ATTACH, 120))
    came = events.Attached(at=201, instance="I200", epoch=2, connection="c", resumable=True)
    worker, ordered = drive(start_again(first, 200), came)
    assert (worker.failed_starts, worker.missing_since) == (0, None)
    assert "Resolve" in kinds(ordered)


def test_V12_a_create_that_the_hub_never_made_is_no_failed_start() -> None:
    gone = events.Inspected(at=10, instance="I0", presence=Presence.GONE, evidence="none")
    assert drive(substantiating(), gone)[0].failed_starts == 0


def test_P7_an_instance_gone_before_attaching_fails_fast() -> None:
    created = events.Created(at=1, instance="I0", handle={"pid": 1})
    gone = events.Inspected(at=10, instance="I0", presence=Presence.GONE, evidence="exit 1")
    worker, _ = drive(substantiating(), created, gone)
    assert worker.state is State.INSUBSTANTIATING
    assert "exit 1" in str(worker.quarantine_reason)


def test_P3_unknown_is_never_taken_for_gone() -> None:
    unknown = events.Inspected(at=10, instance="I0", presence=Presence.UNKNOWN, evidence="?")
    assert drive(substantiating(), unknown)[0].state is State.SUBSTANTIATING
    assert drive(leased(), unknown)[0].leases == ("L0",)


def test_E9_an_instance_whose_agent_is_lost_is_looked_at_twice() -> None:
    worker, ordered = drive(leased(), events.Detached(at=100, connection="c1", cause="closed"))
    assert commands.Inspect("I0") in ordered
    assert worker.timers[Timer.CHECK] == 101


def test_P7_the_check_repeats() -> None:
    before = substantiating()
    first_at = before.timers[Timer.CHECK]
    worker, ordered = drive(before, fired(Timer.CHECK, first_at))
    assert commands.Inspect("I0") in ordered
    assert worker.timers[Timer.CHECK] == pytest.approx(first_at + 10)


def test_an_attached_agent_says_that_its_instance_is_there() -> None:
    """So it is looked at six times less often, until the agent is gone."""
    before = substantiated()
    first_at = before.timers[Timer.CHECK]
    worker, ordered = drive(before, fired(Timer.CHECK, first_at))
    assert commands.Inspect("I0") in ordered
    next_at = first_at + delay_to_next_s("I0", first_at, 60)
    assert worker.timers[Timer.CHECK] == next_at
    later, _ = drive(worker, fired(Timer.CHECK, next_at))
    assert later.timers[Timer.CHECK] == pytest.approx(next_at + 60)


def test_L13_nobody_wants_it_any_more_while_it_starts() -> None:
    worker, ordered = drive(substantiating(), events.Unwanted(at=1, cause="cancelled"))
    assert worker.state is State.INSUBSTANTIATING
    assert "Destroy" in kinds(ordered)


# --- at work -----------------------------------------------------------------------------------


def test_a_lease_stops_the_idle_timer_and_its_release_starts_it() -> None:
    worker = leased()
    assert Timer.IDLE not in worker.timers
    worker, ordered = drive(worker, released())
    assert worker.timers[Timer.IDLE] == 609
    assert "OfferSlots" in kinds(ordered)


@pytest.mark.parametrize(
    "worker",
    [
        leased(leases=2),
        drive(substantiated(), mode(Mode.PAUSED))[0],
        drive(substantiated(), events.Detached(at=4, connection="c1", cause="cut"))[0],
    ],
    ids=["full", "paused", "detached"],
)
def test_V11_a_worker_that_is_not_leasable_refuses_a_lease(worker: Worker) -> None:
    with pytest.raises(IllegalTransition):
        step(worker, events.Leased(at=30, lease="LX"))


def test_build_wait_timeout_zero_stops_at_once() -> None:
    worker, _ = drive(leased(build_wait_timeout_s=0), released())
    assert worker.state is State.INSUBSTANTIATING


def test_build_wait_timeout_zero_leaves_the_first_build_time_to_take_its_slot() -> None:
    worker = substantiated(build_wait_timeout_s=0)
    assert worker.timers[Timer.IDLE] == 2 + actions.FIRST_LEASE_S
    worker, _ = drive(reloaded(worker), events.Recovered(at=1000), attached(1001))
    assert worker.timers[Timer.IDLE] == 1001 + actions.FIRST_LEASE_S


def test_M03_idle_stops_exactly_at_the_timeout() -> None:
    worker = substantiated(build_wait_timeout_s=5)
    assert step(worker, fired(Timer.IDLE, 6.9))[0] is worker
    assert drive(worker, fired(Timer.IDLE, 7))[0].state is State.INSUBSTANTIATING


def test_L27_a_negative_wait_stops_only_with_the_hub() -> None:
    worker = substantiated(build_wait_timeout_s=-1)
    assert Timer.IDLE not in worker.timers
    assert drive(worker, events.HubStopping(at=9))[0].state is State.INSUBSTANTIATING


def test_a_leased_instance_outlives_the_hub() -> None:
    worker, ordered = drive(leased(), events.HubStopping(at=9))
    assert worker.leases == ("L0",)
    assert ordered == []


def test_V9_an_operator_cannot_stop_a_leased_worker_by_not_wanting_it() -> None:
    worker = leased()
    assert step(worker, events.Unwanted(at=5, cause="x"))[0].leases == ("L0",)


def test_V10_an_unclean_slot_ends_the_instance_after_the_other_lease() -> None:
    worker, _ = drive(leased(leases=2), released(clean=False))
    assert worker.state is State.SUBSTANTIATED
    assert worker.tainted
    worker, _ = drive(worker, released("L1"))
    assert worker.state is State.INSUBSTANTIATING


def test_a_finished_build_resets_the_quarantine_s_doubling() -> None:
    worker = replace(leased(), backoff_s=80)
    assert drive(worker, released())[0].backoff_s == 0
    assert drive(worker, released(finished=False))[0].backoff_s == 80


# --- losing sight ------------------------------------------------------------------------------


def test_A6_leases_wait_for_a_resumable_agent() -> None:
    cut = events.Detached(at=5, connection="c1", cause="cut")
    worker, ordered = drive(leased(), cut)
    assert worker.leases == ("L0",)
    assert commands.Inspect("I0") in ordered
    assert worker.timers[Timer.RECONNECT] == 335
    worker, ordered = drive(worker, attached(40, connection="c2"))
    assert worker.leases == ("L0",)
    assert "LoseLeases" not in kinds(ordered)
    assert Timer.RECONNECT not in worker.timers


def test_A16_a_peer_that_cannot_resume_loses_its_leases_at_once() -> None:
    up, _ = drive(substantiating(), attached(resumable=False), events.Leased(at=3, lease="L0"))
    worker, ordered = drive(up, events.Detached(at=5, connection="c1", cause="cut"))
    assert worker.leases == ()
    assert commands.LoseLeases(("L0",), "connection to its agent lost: cut") in ordered


def test_E9_an_agent_that_restarted_has_lost_its_builds() -> None:
    cut = events.Detached(at=5, connection="c1", cause="cut")
    worker, _ = drive(leased(), cut)
    reborn = replace(attached(6, connection="c2"), resumes=False)
    worker, ordered = drive(worker, reborn)
    assert worker.leases == ()
    assert "LoseLeases" in kinds(ordered)
    assert worker.resumable


def test_A7_leases_are_lost_when_the_agent_stays_away() -> None:
    cut = events.Detached(at=5, connection="c1", cause="cut")
    worker, ordered = drive(leased(), cut, fired(Timer.RECONNECT, 335))
    assert worker.state is State.INSUBSTANTIATING
    assert {"LoseLeases", "Notify", "Destroy"} <= set(kinds(ordered))


def test_A4_a_newer_connection_replaces_the_old_and_the_old_one_s_end_is_ignored() -> None:
    worker, ordered = drive(leased(), attached(6, connection="c2"))
    assert kinds(ordered)[0] == "SendAway"
    assert worker.leases == ("L0",)
    late = events.Detached(at=7, connection="c1", cause="closed")
    assert step(worker, late) == (worker, [])


def test_P15_gone_from_outside_idle_and_leased() -> None:
    gone = events.Inspected(at=10, instance="I0", presence=Presence.GONE, evidence="rm -f")
    worker, _ = drive(substantiated(), gone)
    assert worker.state is State.INSUBSTANTIATING
    assert worker.quarantine_until is None
    worker, ordered = drive(leased(), gone)
    assert "LoseLeases" in kinds(ordered)
    assert worker.quarantine_until is not None


def test_a_token_used_twice_ends_the_instance_leased_or_not() -> None:
    stolen = events.Compromised(at=5, instance="I0", cause="used twice")
    for worker in (substantiating(), substantiated(), leased()):
        after, ordered = drive(worker, stolen)
        assert after.state is State.INSUBSTANTIATING
        assert {"Notify", "Destroy"} <= set(kinds(ordered))
        assert after.quarantine_reason == "used twice"


def test_gone_for_missing_timeout_an_idle_agent_is_missing_and_its_instance_replaced() -> None:
    cut, _ = drive(substantiated(), events.Detached(at=100, connection="c1", cause="cut"))
    assert cut.timers[Timer.MISSING] == 220
    worker, ordered = drive(cut, fired(Timer.MISSING, 220))
    assert worker.state is State.INSUBSTANTIATING
    assert worker.missing_since == 220
    assert {"Notify", "Destroy"} <= set(kinds(ordered))


def test_gone_for_missing_timeout_a_leased_agent_is_missing_and_waited_for() -> None:
    cut, _ = drive(leased(), events.Detached(at=100, connection="c1", cause="cut"))
    worker, ordered = drive(cut, fired(Timer.MISSING, 220))
    assert (worker.state, worker.leases) == (State.SUBSTANTIATED, ("L0",))
    assert kinds(ordered) == ["Notify"]
    back, ordered = drive(worker, attached(300, connection="c2"))
    assert (back.leases, back.missing_since) == (("L0",), None)
    assert "Resolve" in kinds(ordered)


def test_an_agent_that_comes_back_in_time_is_not_missing() -> None:
    cut, _ = drive(substantiated(), events.Detached(at=100, connection="c1", cause="cut"))
    worker, _ = drive(cut, attached(219, connection="c2"))
    assert Timer.MISSING not in worker.timers


def test_a_paused_worker_is_missing_only_once_it_is_active_again() -> None:
    cut = events.Detached(at=100, connection="c1", cause="cut")
    worker, _ = drive(substantiated(), mode(Mode.PAUSED), cut)
    assert Timer.MISSING not in worker.timers
    worker, _ = drive(worker, mode(Mode.ACTIVE, 150))
    assert worker.timers[Timer.MISSING] == 270


# --- what an instance is good for ----------------------------------------------------------------


def test_an_instance_gives_max_uses_leases_and_is_then_replaced() -> None:
    worker = substantiated(max_uses=2)
    worker, _ = drive(worker, events.Leased(at=3, lease="L0"), released("L0", at=4))
    assert worker.free_slots == 1
    worker, _ = drive(worker, events.Leased(at=5, lease="L1"))
    assert "has had its 2 builds" in str(why_not_leasable(worker))
    worker, ordered = drive(worker, released("L1", at=6))
    assert worker.state is State.INSUBSTANTIATING
    assert commands.Destroy("I0") in ordered
    worker, ordered = drive(worker, events.Destroyed(at=7, instance="I0"))
    assert ordered[-1] == commands.OfferSlots()
    assert drive(worker, wanted(8))[0].uses_left == 2


def test_a_single_use_instance_takes_one_build_though_it_has_two_slots() -> None:
    worker = leased(max_uses=1)
    assert worker.free_slots == 0
    with pytest.raises(IllegalTransition, match="has had its 1 builds"):
        step(worker, events.Leased(at=4, lease="L1"))


def test_the_other_leases_of_a_used_up_instance_go_on() -> None:
    worker = leased(leases=2, max_uses=2)
    worker, _ = drive(worker, released("L0", at=6))
    assert worker.leases == ("L1",)
    assert drive(worker, released("L1", at=7))[0].state is State.INSUBSTANTIATING


def test_max_uptime_replaces_an_idle_instance() -> None:
    worker = substantiated(max_uptime_s=3600, build_wait_timeout_s=-1)
    assert worker.timers[Timer.UPTIME] == 3602  # from its attaching on
    worker, ordered = drive(worker, fired(Timer.UPTIME, 3602))
    assert worker.state is State.INSUBSTANTIATING
    assert "Destroy" in kinds(ordered)


def test_V9_max_uptime_waits_for_the_lease_and_gives_no_new_one() -> None:
    worker, ordered = drive(leased(max_uptime_s=3600), fired(Timer.UPTIME, 3602))
    assert worker.leases == ("L0",)
    assert ordered == []
    assert "up for its 3600 s" in str(why_not_leasable(worker))
    assert drive(worker, released(at=4000))[0].state is State.INSUBSTANTIATING


def test_max_uptime_goes_on_where_it_was_after_a_restart() -> None:
    worker = reloaded(leased(max_uptime_s=3600))
    assert drive(worker, events.Recovered(at=1000))[0].timers[Timer.UPTIME] == 3602
    assert drive(worker, events.Recovered(at=9999))[0].timers[Timer.UPTIME] == 9999


def test_limits_that_are_redefined_hold_for_the_instance_that_lives() -> None:
    strict = replace(POLICY, max_uses=1, max_uptime_s=60)
    worker, _ = drive(leased(), events.Redefined(at=9, policy=strict, restart=False))
    assert worker.free_slots == 0
    assert worker.timers[Timer.UPTIME] == 62
    used = drive(leased(), released())[0]
    change = events.Redefined(at=10, policy=strict, restart=False)
    assert drive(used, change)[0].state is State.INSUBSTANTIATING


def test_a_permanent_worker_is_not_replaced() -> None:
    assert Timer.UPTIME not in permanent_up().timers


def test_P16_an_agent_that_leaves_is_not_waited_for() -> None:
    """Its builds go elsewhere at once: it has ended them itself."""
    left = events.Detached(at=100, connection="c1", cause="closed", leaves=True)
    worker, ordered = drive(leased(), left)
    assert worker.state is State.INSUBSTANTIATING
    assert worker.leases == ()
    assert "LoseLeases" in kinds(ordered)
    assert worker.quarantine_until is None
    worker, _ = drive(substantiated(), left)
    assert worker.state is State.INSUBSTANTIATING


# --- going down --------------------------------------------------------------------------------


def test_V3_gone_only_when_destroyed_says_so() -> None:
    worker, _ = drive(insubstantiating(), events.Destroyed(at=6, instance="I0"))
    assert worker.state is State.LATENT
    assert worker.instance is None


def test_P13_only_a_persons_word_frees_a_worker_whose_instance_is_not_proven_gone() -> None:
    failed = events.DestroyFailed(at=6, instance="I0", error="busy")
    word = events.Forgotten(at=7, instance="I0", cause="forgotten by ann: the host was sold")
    worker, ordered = drive(insubstantiating(), failed, word)
    assert worker.state is State.LATENT
    assert worker.instance is None
    assert Timer.DESTROY not in worker.timers
    assert commands.OfferSlots() in ordered
    stale, ordered = drive(worker, failed)
    assert (stale, ordered) == (worker, [])


def test_evidence_is_asked_for_when_something_went_wrong_and_only_then() -> None:
    failed = events.CreateFailed(at=1, instance="I0", error="504")
    _, ordered = drive(substantiating(), failed)
    assert commands.Destroy("I0", "create failed: 504") in ordered
    _, ordered = drive(substantiated(), fired(Timer.IDLE, 700))
    assert commands.Destroy("I0", keep=True) in ordered


RESTS = {
    "idle": fired(Timer.IDLE, 700),
    "unwanted": events.Unwanted(at=5, cause="scale down"),
    "the hub stops": events.HubStopping(at=5),
    "stopped": mode(Mode.STOPPED),
    "draining": mode(Mode.DRAINING),
}


def kept(worker: Worker, event: events.Event) -> bool:
    _, ordered = drive(worker, event)
    (destroy,) = (each for each in ordered if isinstance(each, commands.Destroy))
    return destroy.keep


@pytest.mark.parametrize("event", RESTS.values(), ids=RESTS)
def test_a_machine_may_be_kept_that_goes_to_rest_in_good_order(event: events.Event) -> None:
    assert kept(substantiated(), event)
    tainted, _ = drive(leased(leases=2), released("L0", clean=False))
    detached, _ = drive(substantiated(), events.Detached(at=3, connection="c1", cause="cut"))
    unseen = drive(latent(), wanted())[0]
    for worker in (tainted, detached, unseen):
        _, ordered = drive(worker, event)
        assert not any(each.keep for each in ordered if isinstance(each, commands.Destroy))


def test_a_machine_without_idle_time_may_be_kept_after_each_build() -> None:
    assert kept(leased(build_wait_timeout_s=0), released())
    assert not kept(leased(build_wait_timeout_s=0), released(clean=False))


@pytest.mark.parametrize(
    ("worker", "event"),
    [
        (leased(max_uses=1), released()),
        (substantiated(max_uptime_s=50), fired(Timer.UPTIME, 60)),
        (substantiated(), events.Compromised(at=5, instance="I0", cause="stolen")),
        (substantiated(), events.Removed(at=5, by="ann")),
        (substantiated(), events.Redefined(at=5, policy=POLICY, restart=True)),
        (leased(), mode(Mode.STOPPED)),
    ],
)
def test_a_machine_is_not_kept_that_is_to_be_renewed_or_about_which_there_is_doubt(
    worker: Worker, event: events.Event
) -> None:
    assert not kept(worker, event)


def test_a_stop_that_is_ordered_again_keeps_no_machine() -> None:
    failed = events.DestroyFailed(at=6, instance="I0", error="busy")
    worker, _ = drive(insubstantiating(), failed)
    assert not kept(worker, fired(Timer.DESTROY, 7))
    assert not kept(reloaded(insubstantiating()), events.Recovered(at=1000))


def test_P13_a_failed_destroy_is_tried_for_ever_with_growing_waits() -> None:
    worker = insubstantiating()
    waits = []
    at = 6.0
    for _ in range(12):
        worker, _ = drive(worker, events.DestroyFailed(at=at, instance="I0", error="busy"))
        waits.append(worker.timers[Timer.DESTROY] - at)
        at = worker.timers[Timer.DESTROY]
        worker, ordered = drive(worker, fired(Timer.DESTROY, at))
        assert ordered == [commands.Destroy("I0")]
    assert waits[:4] == [1, 2, 4, 8]
    assert waits[-1] == 300
    assert worker.last_error == "busy"


def test_L08_wanted_while_stopping_waits_for_the_end() -> None:
    worker, ordered = drive(insubstantiating(), wanted(6))
    assert worker.state is State.INSUBSTANTIATING
    assert ordered == []
    worker, ordered = drive(worker, events.Destroyed(at=7, instance="I0"))
    assert ordered[-1] == commands.OfferSlots()
    worker, _ = drive(worker, wanted(8))
    assert worker.epoch == 2


def test_A2_an_attach_while_stopping_is_refused() -> None:
    worker, ordered = drive(insubstantiating(), attached(6, connection="c9"))
    assert worker.state is State.INSUBSTANTIATING
    assert kinds(ordered) == ["SendAway"]


def test_P10_the_handle_of_a_create_that_returns_while_stopping_is_kept() -> None:
    stopping, _ = drive(substantiating(), events.Unwanted(at=1, cause="x"))
    worker, _ = drive(stopping, events.Created(at=2, instance="I0", handle={"pid": 3}))
    assert worker.instance is not None
    assert worker.instance.handle == {"pid": 3}


# --- orders ------------------------------------------------------------------------------------


def test_paused_keeps_its_builds_and_its_idle_timer() -> None:
    worker, ordered = drive(leased(), mode(Mode.PAUSED))
    assert worker.leases == ("L0",)
    assert "LoseLeases" not in kinds(ordered)
    assert (worker.mode_reason, worker.mode_by, worker.mode_at) == ("because", "ann", 20)


def test_draining_waits_for_the_last_lease() -> None:
    worker, _ = drive(leased(), mode(Mode.DRAINING))
    assert worker.state is State.SUBSTANTIATED
    assert drive(worker, released(at=30))[0].state is State.INSUBSTANTIATING


def test_draining_and_stopped_end_an_idle_instance_at_once() -> None:
    assert drive(substantiated(), mode(Mode.DRAINING))[0].state is State.INSUBSTANTIATING
    assert drive(substantiating(), mode(Mode.STOPPED))[0].state is State.INSUBSTANTIATING


def test_stopped_gives_the_builds_back_first() -> None:
    worker, ordered = drive(leased(), mode(Mode.STOPPED))
    assert worker.leases == ()
    assert kinds(ordered).index("LoseLeases") < kinds(ordered).index("Destroy")


def test_pause_and_resume_leave_a_quarantine_but_keep_its_doubling() -> None:
    failed = events.CreateFailed(at=1, instance="I0", error="504")
    gone = events.Destroyed(at=2, instance="I0")
    worker, _ = drive(substantiating(), failed, gone, mode(Mode.PAUSED, 3), mode(Mode.ACTIVE, 4))
    assert worker.quarantine_until is None
    assert Timer.QUARANTINE not in worker.timers
    assert worker.backoff_s == 10
    worker, _ = drive(worker, wanted(5), events.CreateFailed(at=6, instance="I5", error="504"))
    assert worker.quarantine_until == 26


def test_a_quarantine_doubles_to_an_hour_and_ends() -> None:
    worker = latent()
    at, waits = 0.0, []
    for _ in range(12):
        worker, _ = drive(worker, wanted(at))
        instance = worker.instance
        assert instance is not None
        failed = events.CreateFailed(at=at, instance=instance.id, error="no")
        worker, _ = drive(worker, failed, events.Destroyed(at=at, instance=instance.id))
        assert step(worker, wanted(at))[0] is not None
        waits.append(worker.timers[Timer.QUARANTINE] - at)
        at = worker.timers[Timer.QUARANTINE]
        worker, ordered = drive(worker, fired(Timer.QUARANTINE, at))
        assert ordered == [commands.OfferSlots()]
    assert waits[:3] == [10, 20, 40]
    assert waits[-1] == 3600


def test_a_removed_worker_is_forgotten_only_when_gone() -> None:
    worker, ordered = drive(latent(), events.Removed(at=1, by="ann"))
    assert commands.Forget() in ordered
    worker, ordered = drive(leased(), events.Removed(at=5, by="ann"))
    assert worker.state is State.INSUBSTANTIATING
    assert "LoseLeases" in kinds(ordered)
    _, ordered = drive(worker, events.Destroyed(at=6, instance="I0"))
    assert ordered == [commands.Forget()]


def test_a_redefinition_that_does_not_fit_replaces_the_instance_when_free() -> None:
    change = events.Redefined(at=9, policy=POLICY, restart=True)
    assert drive(substantiated(), change)[0].state is State.INSUBSTANTIATING
    worker, _ = drive(leased(leases=1), change)
    assert "defined anew" in str(why_not_leasable(worker))
    assert drive(worker, released(at=10))[0].state is State.INSUBSTANTIATING


def test_a_wait_that_is_redefined_for_an_idle_instance_counts_where_none_did() -> None:
    change = events.Redefined(at=9, policy=replace(POLICY, build_wait_timeout_s=5), restart=False)
    worker, _ = drive(substantiated(build_wait_timeout_s=-1), change)
    assert worker.timers[Timer.IDLE] == 14


def test_a_redefined_wait_counts_from_now() -> None:
    change = events.Redefined(at=9, policy=replace(POLICY, build_wait_timeout_s=5), restart=False)
    assert drive(substantiated(), change)[0].timers[Timer.IDLE] == 14


def until(at: float, value: Mode = Mode.PAUSED, given: float = 20) -> events.ModeSet:
    return events.ModeSet(at=given, mode=value, reason="because", by="ann", until=at)


@pytest.mark.parametrize("build", [latent, substantiating, substantiated, leased])
def test_a_mode_with_an_end_is_active_again_after_it(build: Any) -> None:
    worker, _ = drive(build(), until(50))
    assert (worker.mode, worker.mode_until) == (Mode.PAUSED, 50)
    state = worker.state
    worker, ordered = drive(worker, fired(Timer.MODE, 50))
    assert (worker.mode, worker.mode_until, worker.mode_by) == (Mode.ACTIVE, None, "hub")
    assert worker.mode_reason == "paused by ann until now"
    assert worker.state is state
    assert commands.OfferSlots() in ordered


def test_a_mode_s_end_outlives_the_instance() -> None:
    worker, _ = drive(leased(), until(50, Mode.STOPPED))
    assert worker.timers[Timer.MODE] == 50
    worker, _ = drive(worker, events.Destroyed(at=21, instance="I0"))
    assert worker.timers[Timer.MODE] == 50
    permanent, _ = drive(permanent_up(), until(50, Mode.STOPPED, given=2))
    permanent, _ = drive(permanent, events.Destroyed(at=3, instance="P1"))
    assert permanent.timers[Timer.MODE] == 50
    assert drive(permanent, fired(Timer.MODE, 50))[0].timers[Timer.MISSING] == 170


def test_a_later_order_replaces_the_earlier_one_s_end() -> None:
    assert Timer.MODE not in drive(latent(), until(50), mode(Mode.PAUSED, 21))[0].timers
    assert drive(latent(), until(50), until(60, given=30))[0].timers[Timer.MODE] == 60


def test_a_mode_s_end_does_not_end_a_quarantine() -> None:
    failed = events.CreateFailed(at=1, instance="I0", error="504")
    gone = events.Destroyed(at=2, instance="I0")
    worker, _ = drive(substantiating(), failed, gone, until(9, given=3), fired(Timer.MODE, 9))
    assert worker.mode is Mode.ACTIVE
    assert worker.quarantine_until == 11


def test_who_was_refused_changes_nothing_but_the_record() -> None:
    refused = events.Refused(at=30, cause="wrong password from 192.0.2.7")
    alarm = events.Refused(at=30, cause="a second agent", alarm=True)
    assert refused.noteworthy
    for worker in (latent(), substantiating(), leased(), insubstantiating()):
        assert step(worker, refused) == (worker, [])
        assert step(worker, alarm) == (worker, [commands.Notify("duplicate", "a second agent")])


# --- permanent workers ---------------------------------------------------------------------------


def permanent_up(*, resumable: bool = False) -> Worker:
    came = events.Attached(at=1, instance="P1", epoch=None, connection="p", resumable=resumable)
    return drive(latent(permanent=True), came)[0]


def test_a_permanent_worker_attaches_from_latent_and_never_idles_out() -> None:
    worker = permanent_up()
    assert worker.state is State.SUBSTANTIATED
    assert worker.epoch == 1
    assert worker.timers == {}


def test_a_permanent_worker_s_detach_makes_it_latent_and_later_missing() -> None:
    worker, _ = drive(permanent_up(), events.Detached(at=5, connection="p", cause="cut"))
    assert worker.state is State.LATENT
    worker, ordered = drive(worker, fired(Timer.MISSING, 125))
    assert kinds(ordered) == ["Notify"]
    assert worker.missing_since == 125


def test_a_latent_worker_is_not_attached_by_name_alone() -> None:
    came = events.Attached(at=1, instance="P1", epoch=None, connection="p", resumable=False)
    worker, ordered = drive(latent(), came)
    assert worker.state is State.LATENT
    assert kinds(ordered) == ["SendAway"]


def test_a_stopped_permanent_worker_is_sent_away_and_not_let_in_again() -> None:
    worker, ordered = drive(permanent_up(), mode(Mode.STOPPED))
    assert "SendAway" in kinds(ordered)
    worker, _ = drive(worker, events.Destroyed(at=21, instance="P1"))
    came = events.Attached(at=22, instance="P2", epoch=None, connection="q", resumable=False)
    worker, ordered = drive(worker, came)
    assert worker.state is State.LATENT
    assert kinds(ordered) == ["SendAway"]


# --- after a restart -----------------------------------------------------------------------------


def reloaded(worker: Worker) -> Worker:
    """What the store keeps of a worker: no connection, no timers, no call under way."""
    return replace(worker, connection=None, resumable=False, timers={}, destroying=False)


def test_K4_a_starting_worker_waits_anew_and_looks() -> None:
    worker, ordered = drive(reloaded(substantiating()), events.Recovered(at=1000))
    assert worker.timers[Timer.ATTACH] == 1120
    assert commands.Inspect("I0") in ordered


def test_K3_a_create_whose_handle_was_not_recorded_is_adopted() -> None:
    starting, _ = drive(reloaded(substantiating()), events.Recovered(at=1000))
    seen = events.Inspected(
        at=1001, instance="I0", presence=Presence.RUNNING, evidence="", handle={"pid": 4}
    )
    worker, _ = drive(starting, seen)
    assert worker.instance is not None
    assert worker.instance.handle == {"pid": 4}


def test_K2_a_create_that_never_happened_is_given_up() -> None:
    starting, _ = drive(reloaded(substantiating()), events.Recovered(at=1000))
    gone = events.Inspected(at=1001, instance="I0", presence=Presence.GONE, evidence="none")
    worker, ordered = drive(starting, gone)
    assert worker.state is State.INSUBSTANTIATING
    assert "Destroy" in kinds(ordered)
    assert worker.quarantine_until is None  # V12: it was the hub that failed


def test_K5_K8_leases_wait_for_the_agent_after_a_restart() -> None:
    worker, _ = drive(reloaded(leased()), events.Recovered(at=1000))
    assert worker.leases == ("L0",)
    assert worker.timers[Timer.RECONNECT] == 1330
    worker, ordered = drive(worker, attached(1001, connection="new"))
    assert worker.leases == ("L0",)
    assert "LoseLeases" not in kinds(ordered)


def test_K11_a_stop_under_way_is_ordered_again() -> None:
    _, ordered = drive(reloaded(insubstantiating()), events.Recovered(at=1000))
    assert ordered == [commands.Destroy("I0")]


def test_a_quarantine_survives_the_restart() -> None:
    worker = replace(latent(), quarantine_until=1005.0, quarantine_reason="x", backoff_s=10)
    assert drive(worker, events.Recovered(at=1000))[0].timers[Timer.QUARANTINE] == 1005


@pytest.mark.parametrize(
    ("restarted_at", "left_s"),
    [(1100, 500), (1700, 0), (1000 - 86400, 600), (1000 + 86400, 0)],
    ids=["in time", "over meanwhile", "clock set back", "clock set forward"],
)
def test_A9_the_end_of_a_mode_is_never_further_away_than_it_was(
    restarted_at: float, left_s: float
) -> None:
    worker, _ = drive(latent(), until(1600, given=1000))
    worker, _ = drive(reloaded(worker), events.Recovered(at=restarted_at))
    assert worker.timers[Timer.MODE] - restarted_at == left_s
    assert worker.mode_until == worker.timers[Timer.MODE]


@pytest.mark.parametrize(("at", "left_s"), [(1003, 7), (2000, 0), (1003 - 86400, 10)])
def test_A9_a_quarantine_is_never_longer_than_its_delay(at: float, left_s: float) -> None:
    worker = replace(latent(), quarantine_until=1010.0, quarantine_reason="x", backoff_s=10.0)
    worker, _ = drive(worker, events.Recovered(at=at))
    assert worker.timers[Timer.QUARANTINE] - at == left_s


def test_A9_a_clock_that_was_set_back_makes_no_instance_live_longer() -> None:
    worker = reloaded(substantiated(max_uptime_s=60))
    later = replace(worker, up_since=90_000.0)
    assert drive(later, events.Recovered(at=10))[0].timers[Timer.UPTIME] == 70


# --- the table itself ----------------------------------------------------------------------------


def test_no_pair_stands_twice_and_every_state_has_a_way_out() -> None:
    assert len(ROWS) == len(TABLE)
    for state in State:
        assert any(set(row.to) - {state} for row in ROWS if row.state is state)


def test_an_unknown_pair_raises_with_worker_state_and_event() -> None:
    with pytest.raises(IllegalTransition, match=r"worker w in state latent cannot take Leased"):
        step(latent(), events.Leased(at=1, lease="L"))


@pytest.mark.parametrize(
    "event",
    [
        events.Created(at=9, instance="OLD", handle={}),
        events.CreateFailed(at=9, instance="OLD", error="x"),
        events.Inspected(at=9, instance="OLD", presence=Presence.GONE, evidence=""),
        events.Destroyed(at=9, instance="OLD"),
        events.DestroyFailed(at=9, instance="OLD", error="x"),
        events.Compromised(at=9, instance="OLD", cause="x"),
        events.Detached(at=9, connection="old", cause="x"),
        fired(Timer.DESTROY, 9),
    ],
    ids=lambda event: type(event).__name__,
)
@pytest.mark.parametrize(
    "worker",
    [latent(), substantiating(), leased(), insubstantiating()],
    ids=lambda worker: worker.state,
)
def test_P11_what_speaks_of_an_older_instance_changes_nothing(
    worker: Worker, event: events.Event
) -> None:
    assert step(worker, event) == (worker, [])
