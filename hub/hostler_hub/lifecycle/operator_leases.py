"""Leases of operators: an operator has the whole worker or waits for it, and no build gets a slot
meanwhile.

``settle()`` runs after every step, so that no way into a state can forget an operator who waits. A
lease is granted in the step after which the worker is up, allowed and free of builds. It ends when
it is given back, expires, or the instance goes. The instance is then replaced, since no receipt
lists what an operator left behind (V10), unless they asked to keep it. A permanent worker's machine
is its owner's to clean.
"""

from __future__ import annotations

from dataclasses import replace

from hostler_hub.lifecycle import actions, commands, events
from hostler_hub.lifecycle.draft import Draft
from hostler_hub.lifecycle.errors import IllegalTransition
from hostler_hub.lifecycle.model import (
    State,
    Timer,
    why_not_askable,
    why_not_grantable,
)

# Who could not renew while the hub was down gets so long for it (V12).
RENEW_GRACE_S = 60.0


def ask(draft: Draft, event: events.PersonAsked) -> State:
    """Reserve the worker. The use case checks the same under the same lock, so a refusal here means
    that a race was lost.
    """
    worker = draft.worker
    refusal = why_not_askable(worker)
    if refusal is not None:
        raise IllegalTransition(worker.name, worker.state, event, f": {refusal}")
    draft.set(person=event.lease)
    draft.order(commands.OfferSlots())
    return worker.state


def renew(draft: Draft, event: events.PersonRenewed) -> State:
    person = draft.worker.person
    if person is None or person.id != event.lease:
        return draft.worker.state  # it is over; who asked is told so
    renewed = replace(person, until=event.until, ttl_s=event.ttl_s, reason=event.reason)
    draft.set(person=renewed)
    draft.timer(Timer.PERSON, event.until - draft.at)
    draft.order(commands.TellPerson(renewed))
    return draft.worker.state


def leave(draft: Draft, event: events.PersonLeft) -> State:
    person = draft.worker.person
    if person is None or person.id != event.lease:
        return draft.worker.state
    return _give_back(draft, event.cause, person.keep if event.keep is None else event.keep)


def expire(draft: Draft, _event: events.TimerFired) -> State:
    person = draft.worker.person
    if person is None:
        return draft.worker.state
    waited = person.until - person.asked_at
    cause = "expired" if person.granted else f"not free within {waited:g} s"
    return _give_back(draft, cause, person.keep)


def settle(draft: Draft, event: events.Event) -> None:
    """Grant, keep or end the operator's lease after a step."""
    person = draft.worker.person
    if person is None:
        return
    if draft.worker.removing:
        draft.end_person("the worker was removed")
        return
    if isinstance(event, events.Recovered) and person.granted:
        person = replace(person, until=max(person.until, draft.at + RENEW_GRACE_S))
        draft.set(person=person)
    if not person.granted and why_not_grantable(draft.worker) is None:
        person = replace(person, granted_at=draft.at, until=draft.at + person.ttl_s)
        draft.set(person=person)
        draft.cancel(Timer.IDLE)
        draft.order(commands.TellPerson(person))
    if draft.worker.timers.get(Timer.PERSON) != person.until:
        draft.timer(Timer.PERSON, person.until - draft.at)


def _give_back(draft: Draft, cause: str, keep: bool) -> State:
    """End the lease. Builds get the worker again, with this instance or a new one."""
    worker = draft.worker
    person = worker.person
    assert person is not None
    draft.end_person(cause)
    if not person.granted:
        draft.order(commands.OfferSlots())
        return worker.state
    if not worker.policy.permanent and not keep:
        return actions.wind_down(draft, f"{person.holder} had it, who may have changed it")
    if not worker.attached and worker.policy.permanent:
        return actions.leave_permanent(draft)
    return actions.after_release(draft)
