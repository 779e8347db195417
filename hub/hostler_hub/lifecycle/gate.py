"""The gate: whether the attached agent's machine is as the worker's definition expects.

Each attach closes the gate until the machine was examined (``Draft.examine()``); running builds go
on meanwhile. A difference does not go away by waiting, so an instance of the hub is replaced, and
counts as a failed start. A permanent worker stays attached, and is examined again when its
quarantine ends or an operator resumes it: it is not trusted before it was examined.
"""

from __future__ import annotations

from hostler_hub.lifecycle import actions, commands, events
from hostler_hub.lifecycle.draft import Draft
from hostler_hub.lifecycle.model import Gate, State, Timer


def pass_or_shut(draft: Draft, event: events.Examined) -> State:
    return _pass(draft) if event.met else _shut(draft, event.cause)


def _pass(draft: Draft) -> State:
    draft.set(gate=Gate.OPEN, failed_starts=0)
    draft.clear_missing()
    draft.order(commands.Resolve(actions.UNFIT, "it has all that is expected of it"))
    if Timer.IDLE in draft.worker.timers:
        draft.start_idle_timer(at_least_s=actions.FIRST_LEASE_S)
    draft.order(commands.OfferSlots())
    return State.SUBSTANTIATED


def _shut(draft: Draft, reason: str) -> State:
    draft.set(gate=Gate.SHUT)
    if draft.worker.policy.permanent:
        draft.quarantine(reason)
        draft.order(commands.Notify(actions.UNFIT, reason))
        return State.SUBSTANTIATED
    if not draft.worker.uses:
        draft.start_failed(reason)
    draft.quarantine(reason)
    if draft.worker.in_use:
        draft.set(retiring=reason)
        return State.SUBSTANTIATED
    return actions.fail(draft, reason)
