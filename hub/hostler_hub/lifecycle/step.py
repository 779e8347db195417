"""``step()``: takes one event, and returns the new worker and the commands to execute."""

from __future__ import annotations

from hostler_hub.lifecycle import events, operator_leases
from hostler_hub.lifecycle.commands import Command, SendAway
from hostler_hub.lifecycle.draft import Draft
from hostler_hub.lifecycle.errors import IllegalTransition
from hostler_hub.lifecycle.model import Gate, Timer, Worker
from hostler_hub.lifecycle.table import TABLE

_OF_AN_INSTANCE = (
    events.Created,
    events.CreateFailed,
    events.Inspected,
    events.Destroyed,
    events.DestroyFailed,
    events.Forgotten,
    events.Compromised,
)


def step(worker: Worker, event: events.Event) -> tuple[Worker, list[Command]]:
    """The worker after ``event``, and the commands to execute.

    An event about an instance, connection or timer that is no longer the worker's is dropped (P11,
    A3): the worker is then returned as it was. Raises IllegalTransition if the table has no row for
    the pair.
    """
    if _is_stale(worker, event):
        return worker, _answer_stale(worker, event)
    timer = event.timer if isinstance(event, events.TimerFired) else None
    row = TABLE.get((worker.state, type(event), timer))
    if row is None:
        raise IllegalTransition(worker.name, worker.state, event)
    draft = Draft(_without_timer(worker, timer), event.at)
    state = row.action(draft, event)
    if state not in row.to:
        raise IllegalTransition(worker.name, worker.state, event, f" by leading to {state}")
    if state is not worker.state:
        draft.set(state=state, state_since=event.at)
    operator_leases.settle(draft, event)
    return draft.worker, draft.commands


def _is_stale(worker: Worker, event: events.Event) -> bool:
    current = worker.instance.id if worker.instance else None
    if isinstance(event, _OF_AN_INSTANCE):
        return event.instance != current
    if isinstance(event, events.Attached):
        return event.epoch is not None and (
            event.instance != current or event.epoch != worker.epoch
        )
    if isinstance(event, events.Detached):
        return event.connection != worker.connection
    if isinstance(event, events.Examined):
        return worker.gate is not Gate.ASKING or event.exam != worker.exam
    if isinstance(event, events.TimerFired):
        return worker.timers.get(event.timer, event.at + 1) > event.at
    return False


def _answer_stale(worker: Worker, event: events.Event) -> list[Command]:
    if isinstance(event, events.Attached):
        reason = f"instance {event.instance}, epoch {event.epoch}, of {worker.name} is over"
        return [SendAway(event.connection, reason, worker.policy.hold is None)]
    return []


def _without_timer(worker: Worker, timer: Timer | None) -> Worker:
    if timer is None:
        return worker
    draft = Draft(worker, 0.0)
    draft.cancel(timer)
    return draft.worker
