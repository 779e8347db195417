"""The table of transitions: (state, event[, timer]) -> the action, and the states it may lead to.

A row with a surprising outcome says why. The diagram in docs/architecture.md is generated from it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hostler_hub.lifecycle import actions as do
from hostler_hub.lifecycle import events as ev
from hostler_hub.lifecycle import gate, operator_leases, orders, recovery
from hostler_hub.lifecycle.actions import INSUBSTANTIATING, LATENT, SUBSTANTIATED, SUBSTANTIATING
from hostler_hub.lifecycle.draft import Draft
from hostler_hub.lifecycle.model import State, Timer

Key = tuple[State, type[ev.Event], Timer | None]


@dataclass(frozen=True, slots=True)
class Row:
    """One row: in ``state``, ``event`` runs ``action``, which returns one of the states in
    ``to``.
    """

    state: State
    event: type[ev.Event]
    action: Callable[[Draft, Any], State]
    to: tuple[State, ...]
    timer: Timer | None = None
    why: str = ""


ROWS: tuple[Row, ...] = (
    # -- latent: no instance ----------------------------------------------------------------------
    Row(LATENT, ev.Wanted, do.start, (SUBSTANTIATING, LATENT), why="stays when it may not start"),
    Row(LATENT, ev.Unwanted, do.stay, (LATENT,)),
    Row(LATENT, ev.Attached, do.attach_permanent, (SUBSTANTIATED, LATENT), why="permanent only"),
    Row(LATENT, ev.Released, do.stay, (LATENT,), why="the lease was lost before it was released"),
    Row(LATENT, ev.ModeSet, orders.set_mode_latent, (LATENT,)),
    Row(LATENT, ev.Redefined, orders.redefine, (LATENT,)),
    Row(LATENT, ev.Removed, orders.remove_latent, (LATENT,)),
    Row(LATENT, ev.Recovered, recovery.recover_latent, (LATENT,)),
    Row(LATENT, ev.HubStopping, do.stay, (LATENT,)),
    Row(LATENT, ev.TimerFired, do.end_quarantine, (LATENT,), Timer.QUARANTINE),
    Row(LATENT, ev.TimerFired, do.report_missing, (LATENT,), Timer.MISSING, "permanent only"),
    Row(LATENT, ev.PersonAsked, operator_leases.ask, (LATENT,)),
    Row(LATENT, ev.PersonRenewed, operator_leases.renew, (LATENT,)),
    Row(LATENT, ev.PersonLeft, operator_leases.leave, (LATENT,)),
    Row(LATENT, ev.TimerFired, operator_leases.expire, (LATENT,), Timer.PERSON),
    Row(LATENT, ev.TimerFired, orders.end_mode, (LATENT,), Timer.MODE),
    Row(LATENT, ev.Refused, do.note_refused, (LATENT,)),
    # -- substantiating: intended, perhaps created, not attached ----------------------------------
    Row(SUBSTANTIATING, ev.Wanted, do.stay, (SUBSTANTIATING,), why="one create serves all (P12)"),
    Row(SUBSTANTIATING, ev.Unwanted, do.stop_unwanted, (INSUBSTANTIATING,)),
    Row(SUBSTANTIATING, ev.Created, do.record_handle, (SUBSTANTIATING,)),
    Row(
        SUBSTANTIATING,
        ev.CreateFailed,
        do.give_up_create,
        (INSUBSTANTIATING,),
        why="not latent: it may have been created all the same (P1)",
    ),
    Row(
        SUBSTANTIATING,
        ev.Attached,
        do.attach,
        (SUBSTANTIATED,),
        why="also before the create returned (A1)",
    ),
    Row(SUBSTANTIATING, ev.Compromised, do.stop_compromised, (INSUBSTANTIATING,)),
    Row(SUBSTANTIATING, ev.Inspected, do.inspected_booting, (SUBSTANTIATING, INSUBSTANTIATING)),
    Row(SUBSTANTIATING, ev.Released, do.stay, (SUBSTANTIATING,), why="a lease lost earlier"),
    Row(SUBSTANTIATING, ev.ModeSet, orders.set_mode_up, (SUBSTANTIATING, INSUBSTANTIATING)),
    Row(SUBSTANTIATING, ev.Redefined, orders.redefine, (SUBSTANTIATING, INSUBSTANTIATING)),
    Row(SUBSTANTIATING, ev.Removed, orders.remove_up, (INSUBSTANTIATING,)),
    Row(SUBSTANTIATING, ev.Recovered, recovery.recover_starting, (SUBSTANTIATING,)),
    Row(SUBSTANTIATING, ev.HubStopping, do.stop_for_hub, (INSUBSTANTIATING,)),
    Row(SUBSTANTIATING, ev.TimerFired, do.give_up_attach, (INSUBSTANTIATING,), Timer.ATTACH),
    Row(SUBSTANTIATING, ev.TimerFired, do.check_instance, (SUBSTANTIATING,), Timer.CHECK),
    Row(SUBSTANTIATING, ev.TimerFired, do.end_quarantine, (SUBSTANTIATING,), Timer.QUARANTINE),
    Row(SUBSTANTIATING, ev.PersonAsked, operator_leases.ask, (SUBSTANTIATING,)),
    Row(SUBSTANTIATING, ev.PersonRenewed, operator_leases.renew, (SUBSTANTIATING,)),
    Row(SUBSTANTIATING, ev.PersonLeft, operator_leases.leave, (SUBSTANTIATING,)),
    Row(SUBSTANTIATING, ev.TimerFired, operator_leases.expire, (SUBSTANTIATING,), Timer.PERSON),
    Row(SUBSTANTIATING, ev.TimerFired, orders.end_mode, (SUBSTANTIATING,), Timer.MODE),
    Row(SUBSTANTIATING, ev.Refused, do.note_refused, (SUBSTANTIATING,)),
    # -- substantiated: attached, or lost and expected back ---------------------------------------
    Row(SUBSTANTIATED, ev.Wanted, do.stay, (SUBSTANTIATED,)),
    Row(SUBSTANTIATED, ev.Unwanted, do.stop_unwanted, (SUBSTANTIATED, INSUBSTANTIATING)),
    Row(
        SUBSTANTIATED,
        ev.Created,
        do.record_handle,
        (SUBSTANTIATED,),
        why="the agent was faster than the create call (A1)",
    ),
    Row(
        SUBSTANTIATED,
        ev.CreateFailed,
        do.stay,
        (SUBSTANTIATED,),
        why="failed but done: the attached agent proves it (P1)",
    ),
    Row(
        SUBSTANTIATED,
        ev.Attached,
        do.reattach,
        (SUBSTANTIATED, INSUBSTANTIATING),
        why="insubstantiating: it is another process (V4, E9), or the leases it was kept for are "
        "lost with the agent's process",
    ),
    Row(
        SUBSTANTIATED,
        ev.Detached,
        do.detach,
        (SUBSTANTIATED, INSUBSTANTIATING, LATENT),
        why="latent: a permanent worker without leases has no instance of ours",
    ),
    Row(
        SUBSTANTIATED,
        ev.Compromised,
        do.stop_compromised,
        (INSUBSTANTIATING,),
        why="leased or not: who has its token could have its builds",
    ),
    Row(
        SUBSTANTIATED,
        ev.Examined,
        gate.pass_or_shut,
        (SUBSTANTIATED, INSUBSTANTIATING),
        why="stays also when it is unfit, while builds run on it or where it is its owner's",
    ),
    Row(SUBSTANTIATED, ev.Leased, do.lease, (SUBSTANTIATED,)),
    Row(SUBSTANTIATED, ev.Released, do.release, (SUBSTANTIATED, INSUBSTANTIATING)),
    Row(SUBSTANTIATED, ev.Inspected, do.inspected_up, (SUBSTANTIATED, INSUBSTANTIATING)),
    Row(SUBSTANTIATED, ev.ModeSet, orders.set_mode_up, (SUBSTANTIATED, INSUBSTANTIATING)),
    Row(SUBSTANTIATED, ev.Redefined, orders.redefine, (SUBSTANTIATED, INSUBSTANTIATING)),
    Row(SUBSTANTIATED, ev.Removed, orders.remove_up, (INSUBSTANTIATING,)),
    Row(SUBSTANTIATED, ev.Recovered, recovery.recover_up, (SUBSTANTIATED, INSUBSTANTIATING)),
    Row(
        SUBSTANTIATED,
        ev.HubStopping,
        do.stop_for_hub,
        (SUBSTANTIATED, INSUBSTANTIATING),
        why="a leased instance outlives the hub and is taken up again",
    ),
    Row(
        SUBSTANTIATED,
        ev.TimerFired,
        do.stop_idle,
        (INSUBSTANTIATING, SUBSTANTIATED),
        Timer.IDLE,
        "stays when a lease won the race, or queued work needs it (P20, V9)",
    ),
    Row(SUBSTANTIATED, ev.TimerFired, do.check_instance, (SUBSTANTIATED,), Timer.CHECK),
    Row(
        SUBSTANTIATED,
        ev.TimerFired,
        do.give_up_reconnect,
        (SUBSTANTIATED, INSUBSTANTIATING, LATENT),
        Timer.RECONNECT,
        "stays while a person has it; latent: permanent workers are not ours to destroy",
    ),
    Row(SUBSTANTIATED, ev.TimerFired, do.end_quarantine, (SUBSTANTIATED,), Timer.QUARANTINE),
    Row(SUBSTANTIATED, ev.PersonAsked, operator_leases.ask, (SUBSTANTIATED,)),
    Row(SUBSTANTIATED, ev.PersonRenewed, operator_leases.renew, (SUBSTANTIATED,)),
    Row(
        SUBSTANTIATED,
        ev.PersonLeft,
        operator_leases.leave,
        (SUBSTANTIATED, INSUBSTANTIATING, LATENT),
        why="what a person used is replaced, unless they said to keep it",
    ),
    Row(
        SUBSTANTIATED,
        ev.TimerFired,
        operator_leases.expire,
        (SUBSTANTIATED, INSUBSTANTIATING, LATENT),
        Timer.PERSON,
        "the wait for it is over, or the lease is",
    ),
    Row(SUBSTANTIATED, ev.TimerFired, orders.end_mode, (SUBSTANTIATED,), Timer.MODE),
    Row(
        SUBSTANTIATED,
        ev.TimerFired,
        do.miss_agent,
        (SUBSTANTIATED, INSUBSTANTIATING),
        Timer.MISSING,
        "stays when leases may still be resumed",
    ),
    Row(
        SUBSTANTIATED,
        ev.TimerFired,
        do.stop_old,
        (SUBSTANTIATED, INSUBSTANTIATING),
        Timer.UPTIME,
        "stays when it is in use (V9)",
    ),
    Row(
        SUBSTANTIATED,
        ev.Refused,
        do.note_refused,
        (SUBSTANTIATED,),
        why="who is attached is not disturbed (A3, A5)",
    ),
    # -- insubstantiating: being stopped until proven gone ----------------------------------------
    Row(
        INSUBSTANTIATING,
        ev.Wanted,
        do.stay,
        (INSUBSTANTIATING,),
        why="a new instance waits for the old one's end; the dispatcher asks again (P11, L08)",
    ),
    Row(INSUBSTANTIATING, ev.Unwanted, do.stay, (INSUBSTANTIATING,)),
    Row(
        INSUBSTANTIATING,
        ev.Created,
        do.record_handle,
        (INSUBSTANTIATING,),
        why="stopped while starting: the destroy that waits for the create needs the handle (P10)",
    ),
    Row(INSUBSTANTIATING, ev.CreateFailed, do.stay, (INSUBSTANTIATING,)),
    Row(INSUBSTANTIATING, ev.Attached, do.refuse, (INSUBSTANTIATING,), why="too late (A2)"),
    Row(INSUBSTANTIATING, ev.Detached, do.lose_connection, (INSUBSTANTIATING,)),
    Row(INSUBSTANTIATING, ev.Released, do.stay, (INSUBSTANTIATING,), why="lost before (A13)"),
    Row(INSUBSTANTIATING, ev.Compromised, do.stay, (INSUBSTANTIATING,)),
    Row(INSUBSTANTIATING, ev.Inspected, do.stay, (INSUBSTANTIATING,)),
    Row(INSUBSTANTIATING, ev.Destroyed, do.become_latent, (LATENT,)),
    Row(
        INSUBSTANTIATING,
        ev.Forgotten,
        do.become_latent,
        (LATENT,),
        why="a person's word is the only other proof (P13)",
    ),
    Row(INSUBSTANTIATING, ev.DestroyFailed, do.note_destroy_failed, (INSUBSTANTIATING,)),
    Row(INSUBSTANTIATING, ev.ModeSet, orders.set_mode_down, (INSUBSTANTIATING,)),
    Row(INSUBSTANTIATING, ev.Redefined, orders.redefine, (INSUBSTANTIATING,)),
    Row(INSUBSTANTIATING, ev.Removed, orders.remove_down, (INSUBSTANTIATING,)),
    Row(INSUBSTANTIATING, ev.Recovered, recovery.recover_down, (INSUBSTANTIATING,)),
    Row(INSUBSTANTIATING, ev.HubStopping, do.stay, (INSUBSTANTIATING,)),
    Row(
        INSUBSTANTIATING,
        ev.TimerFired,
        do.try_destroy_again,
        (INSUBSTANTIATING,),
        Timer.DESTROY,
    ),
    Row(INSUBSTANTIATING, ev.TimerFired, do.end_quarantine, (INSUBSTANTIATING,), Timer.QUARANTINE),
    Row(INSUBSTANTIATING, ev.PersonAsked, operator_leases.ask, (INSUBSTANTIATING,)),
    Row(INSUBSTANTIATING, ev.PersonRenewed, operator_leases.renew, (INSUBSTANTIATING,)),
    Row(INSUBSTANTIATING, ev.PersonLeft, operator_leases.leave, (INSUBSTANTIATING,)),
    Row(INSUBSTANTIATING, ev.TimerFired, operator_leases.expire, (INSUBSTANTIATING,), Timer.PERSON),
    Row(INSUBSTANTIATING, ev.TimerFired, orders.end_mode, (INSUBSTANTIATING,), Timer.MODE),
    Row(INSUBSTANTIATING, ev.Refused, do.note_refused, (INSUBSTANTIATING,)),
)

TABLE: dict[Key, Row] = {(row.state, row.event, row.timer): row for row in ROWS}
