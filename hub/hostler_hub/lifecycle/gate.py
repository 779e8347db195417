"""The gate: whether the machine that has attached is the one its worker's definition promises.

Every attach shuts it until the machine was looked at (``Draft.examine()``); builds that run go on
meanwhile. What differs is no accident that waiting mends, so an instance of ours is replaced, and
counts as a start that failed; a permanent worker stays attached, and is looked at again when its
quarantine ends or somebody resumes it: nobody's word is taken for it.
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
