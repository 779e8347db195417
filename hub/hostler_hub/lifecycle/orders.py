"""Orders of operators and owners: modes, with or without an end, definitions, and removal."""

from __future__ import annotations

from hostler_hub.lifecycle import actions, commands, events
from hostler_hub.lifecycle.actions import (
    INSUBSTANTIATING,
    LATENT,
    SUBSTANTIATED,
    SUBSTANTIATING,
)
from hostler_hub.lifecycle.draft import Draft
from hostler_hub.lifecycle.model import Mode, State, Timer, why_retiring


def _note_mode(draft: Draft, event: events.ModeSet) -> None:
    if event.mode is Mode.ACTIVE:
        draft.leave_quarantine()  # its doubling stays until a build finishes
        draft.order(commands.OfferSlots())
    if event.mode is not Mode.ACTIVE:
        draft.cancel(Timer.MISSING)
    draft.set(mode=event.mode, mode_reason=event.reason, mode_by=event.by, mode_at=event.at)
    draft.cancel(Timer.MODE)
    draft.set(mode_until=event.until)
    if event.until is not None:
        draft.timer(Timer.MODE, max(0.0, event.until - event.at))


def set_mode_latent(draft: Draft, event: events.ModeSet) -> State:
    _note_mode(draft, event)
    _expect_again(draft)
    return LATENT


def _expect_again(draft: Draft) -> None:
    """The worker is active again: start the timer for a missing agent, if none is attached."""
    worker = draft.worker
    awaited = worker.policy.permanent if worker.state is LATENT else worker.state is SUBSTANTIATED
    if awaited and not worker.attached and Timer.MISSING not in worker.timers:
        draft.await_agent()


def end_mode(draft: Draft, event: events.TimerFired) -> State:
    """The time of the order is over: the worker is active again. A quarantine is not an order, and
    stays.
    """
    was, by = draft.worker.mode, draft.worker.mode_by
    draft.set(mode=Mode.ACTIVE, mode_reason=f"{was} by {by} until now", mode_by="hub")
    draft.set(mode_at=event.at, mode_until=None)
    _expect_again(draft)
    draft.order(commands.OfferSlots())
    return draft.worker.state


def set_mode_up(draft: Draft, event: events.ModeSet) -> State:
    _note_mode(draft, event)
    _expect_again(draft)
    stop_now = event.mode is Mode.STOPPED
    drained = event.mode is Mode.DRAINING and not draft.worker.in_use
    if stop_now or drained:
        return actions.stop_in_good_order(
            draft, f"{event.mode} by {event.by}: {event.reason or 'no reason given'}"
        )
    return draft.worker.state


def set_mode_down(draft: Draft, event: events.ModeSet) -> State:
    _note_mode(draft, event)
    return INSUBSTANTIATING


def redefine(draft: Draft, event: events.Redefined) -> State:
    expected = draft.worker.policy.expects
    draft.set(policy=event.policy)
    if expected is not None and event.policy.expects is None:
        draft.order(commands.Resolve(actions.UNFIT, "nothing is expected of it any more"))
    worker = draft.worker
    up = worker.state in {SUBSTANTIATING, SUBSTANTIATED}
    if up and event.restart and not worker.in_use:
        return actions.wind_down(draft, "redefined")
    if up and event.restart:
        draft.set(retiring="it was defined anew")
    if worker.state is SUBSTANTIATED:
        actions.limit_uptime(draft)
        if event.policy.expects != expected:
            draft.examine()
            draft.order(commands.OfferSlots())
        if not worker.in_use and (worn := why_retiring(worker)) is not None:
            return actions.wind_down(draft, worn)
    if worker.state is SUBSTANTIATED and worker.attached and not worker.in_use:
        # Also where no countdown was under way: it was to be kept until the hub stops (V17).
        draft.cancel(Timer.IDLE)
        draft.start_idle_timer()
    return worker.state


def lift_hold(draft: Draft, event: events.HoldLifted) -> State:
    """Do what the hold has kept from being done."""
    draft.set(policy=event.policy)
    worker = draft.worker
    draft.order(commands.OfferSlots())
    if worker.state is INSUBSTANTIATING and not worker.destroying:
        draft.destroy()
    if worker.state is SUBSTANTIATED and (reason := actions.why_over(worker)) is not None:
        return actions.wind_down(draft, reason)
    return worker.state


def remove_latent(draft: Draft, _event: events.Removed) -> State:
    draft.cancel(*draft.worker.timers)
    draft.leave_quarantine()
    draft.set(removing=True)
    draft.order(commands.Forget())
    return LATENT


def remove_up(draft: Draft, event: events.Removed) -> State:
    draft.set(removing=True)
    return actions.wind_down(draft, f"removed by {event.by}")


def remove_down(draft: Draft, _event: events.Removed) -> State:
    draft.set(removing=True)
    return INSUBSTANTIATING
