"""Recovery at the hub's start: what was in progress is resumed, and stored deadlines are measured
anew.
"""

from __future__ import annotations

from hostler_hub.lifecycle import actions, commands, events
from hostler_hub.lifecycle.actions import (
    INSUBSTANTIATING,
    LATENT,
    SUBSTANTIATED,
    SUBSTANTIATING,
)
from hostler_hub.lifecycle.draft import Draft
from hostler_hub.lifecycle.model import State, Timer


def _recover_deadlines(draft: Draft) -> None:
    """Measure stored instants from now. If the clock was set back meanwhile, no wait becomes longer
    than its full length (A9); if it was set forward, it is as if the hub had been down.
    """
    worker = draft.worker
    if worker.quarantine_until is not None:
        left = min(max(0.0, worker.quarantine_until - draft.at), worker.backoff_s)
        draft.set(quarantine_until=draft.at + left)
        draft.timer(Timer.QUARANTINE, left)
    if worker.mode_until is not None:
        asked_at = draft.at if worker.mode_at is None else worker.mode_at
        left = min(max(0.0, worker.mode_until - draft.at), max(0.0, worker.mode_until - asked_at))
        draft.set(mode_until=draft.at + left)
        draft.timer(Timer.MODE, left)
    if worker.up_since is not None:
        draft.set(up_since=min(worker.up_since, draft.at))


def recover_latent(draft: Draft, _event: events.Recovered) -> State:
    _recover_deadlines(draft)
    worker = draft.worker
    if worker.removing:
        draft.order(commands.Forget())
    elif worker.policy.permanent:
        draft.await_agent()
    return LATENT


def recover_starting(draft: Draft, _event: events.Recovered) -> State:
    """K2 to K4: the driver finds out whether the create took place. The wait begins anew, so that
    the hub's downtime does not count against the worker (V12).
    """
    _recover_deadlines(draft)
    assert draft.worker.instance is not None
    draft.timer(Timer.ATTACH, draft.worker.policy.missing_timeout_s)
    draft.schedule_check()
    draft.order(commands.Inspect(draft.worker.instance.id))
    return SUBSTANTIATING


def recover_up(draft: Draft, _event: events.Recovered) -> State:
    """K5 to K9: the agent reconnects by itself; its leases stay open for it."""
    _recover_deadlines(draft)
    draft.disconnect()
    draft.set(resumable=True)
    if (reason := actions.why_over(draft.worker)) is not None:
        return actions.wind_down(draft, reason)
    draft.timer(Timer.RECONNECT, draft.worker.policy.lease_ttl_s + 30)
    draft.await_agent()
    actions.limit_uptime(draft)
    if not draft.worker.policy.permanent:
        assert draft.worker.instance is not None
        draft.schedule_check()
        draft.order(commands.Inspect(draft.worker.instance.id))
    return SUBSTANTIATED


def recover_down(draft: Draft, _event: events.Recovered) -> State:
    """K11: destroying is idempotent."""
    _recover_deadlines(draft)
    draft.destroy()
    return INSUBSTANTIATING
