"""The actions of the table's rows. An action edits the draft and returns the next state."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hostler_hub.lifecycle import commands, events
from hostler_hub.lifecycle.draft import Draft
from hostler_hub.lifecycle.errors import IllegalTransition
from hostler_hub.lifecycle.model import (
    Gate,
    Instance,
    Mode,
    Presence,
    State,
    Timer,
    Worker,
    is_sound,
    why_no_instance,
    why_not_leasable,
    why_retiring,
)

LATENT = State.LATENT
SUBSTANTIATING = State.SUBSTANTIATING
SUBSTANTIATED = State.SUBSTANTIATED
INSUBSTANTIATING = State.INSUBSTANTIATING

# Who attaches waits at least so long for a build: with a build_wait_timeout of 0 an instance would
# be idle, and stopped, before the build it was started for could take its slot.
FIRST_LEASE_S = 5.0

# And for so long while its machine is compared with what is expected of it.
EXAM_S = 120.0

# The incident of a machine that is not what its definition expects.
UNFIT = "unfit"

# What goes on whatever becomes of the instance.
_OUTLIVE_INSTANCES = frozenset({Timer.QUARANTINE, Timer.MODE, Timer.PERSON})

# After its agent's connection was lost an instance is looked at twice.
LOOK_AGAIN_S = 1.0


def stay(draft: Draft, _event: events.Event) -> State:
    """Change nothing. The row exists because the event can arrive in this state."""
    return draft.worker.state


# --- coming up -----------------------------------------------------------------------------------


def start(draft: Draft, event: events.Wanted) -> State:
    if why_no_instance(draft.worker) is not None:
        return draft.worker.state
    epoch = draft.worker.epoch + 1
    draft.set(epoch=epoch, instance=Instance(event.instance, epoch), destroy_attempts=0)
    draft.order(commands.Create(event.instance, epoch))
    draft.timer(Timer.ATTACH, draft.worker.policy.missing_timeout_s)
    draft.schedule_check()
    return SUBSTANTIATING


def record_handle(draft: Draft, event: events.Created) -> State:
    _set_handle(draft, event.handle)
    return draft.worker.state


def give_up_create(draft: Draft, event: events.CreateFailed) -> State:
    draft.start_failed(event.error)
    draft.quarantine(event.error)
    return fail(draft, f"create failed: {event.error}")


def give_up_attach(draft: Draft, _event: events.TimerFired) -> State:
    wait = draft.worker.policy.missing_timeout_s
    reason = f"its agent did not attach within {wait:g} s"
    draft.start_failed(reason, never_attached=True)
    draft.quarantine(reason)
    return fail(draft, reason)


def attach(draft: Draft, event: events.Attached) -> State:
    _connect(draft, event)
    draft.set(up_since=event.at)
    if draft.worker.gate is Gate.OPEN:
        draft.set(failed_starts=0)
    limit_uptime(draft)
    draft.start_idle_timer(at_least_s=first_lease_s(draft))
    draft.order(commands.OfferSlots())
    return SUBSTANTIATED


def attach_permanent(draft: Draft, event: events.Attached) -> State:
    worker = draft.worker
    if not worker.policy.permanent:
        return refuse(draft, event)
    if worker.removing or worker.mode in {Mode.STOPPED, Mode.DRAINING}:
        why = "being removed" if worker.removing else worker.mode
        draft.order(commands.SendAway(event.connection, f"worker {worker.name} is {why}"))
        return LATENT
    epoch = worker.epoch + 1
    draft.set(epoch=epoch, instance=Instance(event.instance, epoch, {}), destroy_attempts=0)
    return attach(draft, replace(event, epoch=epoch))


def reattach(draft: Draft, event: events.Attached) -> State:
    """Replace the connection at once: the same process has a new one, and the old one is half-open
    (A4).

    Another process may be a build with its agent's stolen identity, so that it never takes the
    place of an agent whose connection is open (V4). Otherwise it is the agent's restart (E9).
    """
    old = draft.worker.connection
    if event.process != draft.worker.process:
        if old is not None:
            return contest(draft, event)
        if not draft.worker.policy.permanent and not event.proven:
            return replace_restarted(draft, event)
    if old is not None:
        draft.order(commands.SendAway(old, "replaced by a newer connection of the same agent"))
    continues = event.resumable and event.resumes
    if not (continues and (old is None or draft.worker.resumable)):
        draft.lose_leases("the agent came back without the commands it had (E9)")
    _connect(draft, event)
    if (reason := why_over(draft.worker)) is not None:
        return wind_down(draft, reason)
    if not draft.worker.in_use and Timer.IDLE not in draft.worker.timers:
        draft.start_idle_timer(at_least_s=first_lease_s(draft))
    draft.order(commands.OfferSlots())
    return SUBSTANTIATED


def contest(draft: Draft, event: events.Attached) -> State:
    """Refuse an agent that is not the process whose connection is open. Which of the two is a thief
    nobody can tell: a latent instance ends, and a permanent worker stays as it is (V19).
    """
    cause = "another process came as its agent while the connection of the first one was open"
    if draft.worker.policy.permanent:
        draft.order(commands.Notify("duplicate", cause))
        draft.order(commands.TurnAway(event.connection, cause))
        return draft.worker.state
    draft.order(commands.SendAway(event.connection, cause))
    return _end_compromised(draft, cause)


def replace_restarted(draft: Draft, event: events.Attached) -> State:
    """Replace an instance whose agent came back as another process, where builds could have read
    what it attaches with.
    """
    reason = "its agent came back as another process, and nothing kept builds from its identity"
    draft.order(commands.SendAway(event.connection, reason))
    if draft.worker.leases:
        draft.quarantine(reason)
    return fail(draft, reason)


def refuse(draft: Draft, event: events.Attached) -> State:
    reason = f"worker {draft.worker.name} does not expect this instance"
    draft.order(commands.SendAway(event.connection, reason))
    return draft.worker.state


def _connect(draft: Draft, event: events.Attached) -> None:
    draft.cancel(Timer.ATTACH, Timer.RECONNECT, Timer.MISSING)
    draft.set(connection=event.connection, process=event.process, resumable=event.resumable)
    draft.examine()
    if draft.worker.gate is Gate.OPEN or not draft.worker.failed_starts:
        draft.clear_missing()  # else it may have failed again, and people were told so already
    if Timer.CHECK not in draft.worker.timers and not draft.worker.policy.permanent:
        draft.schedule_check()


def first_lease_s(draft: Draft) -> float:
    return FIRST_LEASE_S if draft.worker.gate is Gate.OPEN else EXAM_S


def limit_uptime(draft: Draft) -> None:
    """Start the timer for max_uptime, counted from the first attach: a slow boot does not shorten
    it.
    """
    draft.cancel(Timer.UPTIME)
    limit, since = draft.worker.policy.max_uptime_s, draft.worker.up_since
    if limit is not None and since is not None and not draft.worker.policy.permanent:
        draft.timer(Timer.UPTIME, max(0.0, since + limit - draft.at))


def _set_handle(draft: Draft, handle: Any) -> None:
    assert draft.worker.instance is not None
    draft.set(instance=replace(draft.worker.instance, handle=handle))


# --- at work -------------------------------------------------------------------------------------


def lease(draft: Draft, event: events.Leased) -> State:
    """Add the lease. The dispatcher asked why_not_leasable() under the same lock, so a refusal here
    is a defect of it.
    """
    refusal = why_not_leasable(draft.worker)
    if refusal is not None:
        raise IllegalTransition(draft.worker.name, draft.worker.state, event, f": {refusal}")
    draft.cancel(Timer.IDLE)
    draft.set(leases=(*draft.worker.leases, event.lease), uses=draft.worker.uses + 1)
    return SUBSTANTIATED


def release(draft: Draft, event: events.Released) -> State:
    if event.lease not in draft.worker.leases:
        return SUBSTANTIATED
    draft.set(leases=tuple(lease for lease in draft.worker.leases if lease != event.lease))
    if event.finished:
        draft.set(backoff_s=0.0)
    if not event.clean:
        _distrust(draft, event.cause)
    return after_release(draft)


def _distrust(draft: Draft, cause: str) -> None:
    """A slot did not come back clean: quarantine the worker and, unless it is permanent, mark its
    instance as tainted, so that it gets no further build (V10).
    """
    draft.quarantine(f"a slot did not come back clean: {cause}")
    if not draft.worker.policy.permanent:
        draft.set(tainted=True)


def why_over(worker: Worker) -> str | None:
    """Why an instance without leases has to go, if it was only kept for them; else None."""
    if worker.in_use:
        return None
    if worker.tainted:
        return "a slot did not come back clean"
    return "drained" if worker.mode is Mode.DRAINING else why_retiring(worker)


def after_release(draft: Draft) -> State:
    """Decide about the instance after a lease of a build or an operator has ended."""
    worker = draft.worker
    if worker.leases:
        draft.order(commands.OfferSlots())
        return SUBSTANTIATED
    if worker.tainted:
        return fail(draft, "a slot did not come back clean")
    if worker.mode is Mode.DRAINING:
        return stop_in_good_order(draft, "drained")
    if (worn := why_retiring(worker)) is not None:
        return wind_down(draft, worn)
    if worker.policy.build_wait_timeout_s == 0 and not worker.policy.permanent:
        return stop_in_good_order(draft, "build_wait_timeout is 0")
    draft.start_idle_timer()
    draft.order(commands.OfferSlots())
    return SUBSTANTIATED


# --- losing sight --------------------------------------------------------------------------------


def detach(draft: Draft, event: events.Detached) -> State:
    """Record that the agent is gone. The instance may still exist, and its builds may still run
    (A6).
    """
    draft.disconnect()
    draft.order(commands.Resolve("duplicate", "the connection that was contested has ended"))
    if event.leaves:
        draft.lose_leases("its agent has left")
    elif not draft.worker.resumable:
        draft.lose_leases(f"connection to its agent lost: {event.cause}")
    if draft.worker.policy.permanent and not draft.worker.in_use:
        return leave_permanent(draft)
    if event.leaves and not draft.worker.in_use:
        return wind_down(draft, "its agent has left")
    if (reason := why_over(draft.worker)) is not None:
        return wind_down(draft, reason)
    draft.cancel(Timer.IDLE)
    # 30 s more than the agent gives itself, which kills its jobs 30 s early (A7).
    draft.timer(Timer.RECONNECT, draft.worker.policy.lease_ttl_s + 30)
    draft.await_agent()
    if not draft.worker.policy.permanent:
        assert draft.worker.instance is not None
        draft.order(commands.Inspect(draft.worker.instance.id))
        # What dies closes its connections first: this look may come a moment too early.
        draft.timer(Timer.CHECK, min(LOOK_AGAIN_S, draft.worker.policy.check_instance_interval_s))
    return SUBSTANTIATED


def give_up_reconnect(draft: Draft, event: events.TimerFired) -> State:
    if event.keep_s is not None:
        draft.timer(Timer.RECONNECT, event.keep_s)
        return SUBSTANTIATED
    reason = "its agent did not reconnect in time"
    draft.lose_leases(reason)
    if draft.worker.in_use:
        # A person may have good reasons to stop the agent; the instance is looked at meanwhile.
        draft.timer(Timer.RECONNECT, draft.worker.policy.lease_ttl_s + 30)
        return SUBSTANTIATED
    if draft.worker.policy.permanent:
        draft.report_missing(reason)
        return leave_permanent(draft)
    draft.report_missing(reason)
    draft.quarantine(reason)
    return fail(draft, reason)


def report_missing(draft: Draft, _event: events.TimerFired) -> State:
    draft.report_missing(f"not attached for {draft.worker.policy.missing_timeout_s:g} s")
    return LATENT


def miss_agent(draft: Draft, event: events.TimerFired) -> State:
    """Report the worker as missing. Its builds may resume until their leases end; an idle instance
    is replaced.
    """
    if event.keep_s is not None:
        draft.timer(Timer.MISSING, event.keep_s)
        return SUBSTANTIATED
    if draft.worker.in_use and not draft.worker.leases:
        return SUBSTANTIATED  # a person may have good reasons to stop the agent
    reason = f"its agent has been gone for {draft.worker.policy.missing_timeout_s:g} s"
    draft.report_missing(reason)
    if draft.worker.leases or draft.worker.policy.permanent:
        return SUBSTANTIATED
    draft.quarantine(reason)
    return fail(draft, reason)


def leave_permanent(draft: Draft) -> State:
    """The agent of a permanent worker is gone, so there is no instance any more."""
    draft.lose_person("its agent is gone")
    draft.cancel(*(timer for timer in draft.worker.timers if timer not in _OUTLIVE_INSTANCES))
    _part_with_instance(draft)
    if draft.worker.removing:
        draft.order(commands.Forget())
    else:
        draft.await_agent()
    return LATENT


def _part_with_instance(draft: Draft) -> None:
    draft.disconnect()
    draft.set(instance=None, process=None, destroying=False, destroy_attempts=0)
    draft.set(up_since=None, uses=0, retiring=None, tainted=False)


# --- looking -------------------------------------------------------------------------------------


def check_instance(draft: Draft, _event: events.TimerFired) -> State:
    assert draft.worker.instance is not None
    draft.order(commands.Inspect(draft.worker.instance.id))
    draft.schedule_check()
    return draft.worker.state


def inspected_booting(draft: Draft, event: events.Inspected) -> State:
    assert draft.worker.instance is not None
    if event.presence is Presence.GONE:
        reason = f"its instance ended before the agent attached: {event.evidence}"
        if draft.worker.instance.handle is not None:
            draft.start_failed(reason)
            draft.quarantine(reason)
            return fail(draft, reason)
        # Else the hub died before the create (K2), which is no fault of the worker's (V12).
        return wind_down(draft, reason)
    if event.presence is Presence.RUNNING and event.handle is not None:
        _set_handle(draft, event.handle)  # K3: created, but the handle was not recorded
    return SUBSTANTIATING


def inspected_up(draft: Draft, event: events.Inspected) -> State:
    assert draft.worker.instance is not None
    if event.presence is Presence.RUNNING and draft.worker.instance.handle is None:
        _set_handle(draft, event.handle)  # the agent was there before the create was answered
    if event.presence is not Presence.GONE:
        return SUBSTANTIATED
    reason = f"its instance is gone: {event.evidence}"
    if draft.worker.leases:
        draft.quarantine(reason)
    draft.lose_leases(reason)
    return fail(draft, reason)


# --- going down ----------------------------------------------------------------------------------


def fail(draft: Draft, reason: str) -> State:
    """Stop the instance because something went wrong, and collect evidence of it."""
    return wind_down(draft, reason, failure=reason)


def stop_in_good_order(draft: Draft, reason: str) -> State:
    """Stop the instance in good order, so that the driver may keep its machine for the next
    instance.

    The machine is not kept if it is to be renewed, or if no agent is attached that could say it is
    sound.
    """
    return wind_down(draft, reason, keep=draft.worker.attached and is_sound(draft.worker))


def wind_down(
    draft: Draft, reason: str, failure: str | None = None, *, keep: bool = False
) -> State:
    """Stop the instance for good: end its leases, send its agent away, and destroy it until it is
    proven gone.
    """
    draft.lose_leases(reason, still_running=True)
    draft.lose_person(reason)
    draft.cancel(*(timer for timer in draft.worker.timers if timer not in _OUTLIVE_INSTANCES))
    draft.set(gate=Gate.OPEN)
    if draft.worker.connection is not None:
        draft.order(commands.SendAway(draft.worker.connection, reason))
    draft.destroy(failure, keep=keep)
    return INSUBSTANTIATING


def stop_compromised(draft: Draft, event: events.Compromised) -> State:
    return _end_compromised(draft, event.cause)


def _end_compromised(draft: Draft, cause: str) -> State:
    draft.order(commands.Notify("compromised", cause))
    draft.quarantine(cause)
    return wind_down(draft, cause)


def stop_unwanted(draft: Draft, event: events.Unwanted) -> State:
    if draft.worker.in_use:
        return draft.worker.state  # V9: busy is never guessed
    return stop_in_good_order(draft, event.cause)


def stop_idle(draft: Draft, event: events.TimerFired) -> State:
    if draft.worker.in_use:
        return SUBSTANTIATED
    if event.keep_s is not None:
        draft.timer(Timer.IDLE, event.keep_s)
        return SUBSTANTIATED
    return stop_in_good_order(draft, "idle for build_wait_timeout")


def stop_old(draft: Draft, _event: events.TimerFired) -> State:
    """max_uptime has passed: stop an idle instance; one with builds gets no further build (V9)."""
    reason = f"it has been up for its {draft.worker.policy.max_uptime_s:g} s"
    if not draft.worker.in_use:
        return wind_down(draft, reason)
    draft.set(retiring=reason)
    return SUBSTANTIATED


def note_refused(draft: Draft, event: events.Refused) -> State:
    if event.alarm:
        draft.order(commands.Notify("duplicate", event.cause))
    return draft.worker.state


def stop_for_hub(draft: Draft, _event: events.HubStopping) -> State:
    if draft.worker.in_use or draft.worker.policy.permanent:
        return draft.worker.state
    return stop_in_good_order(draft, "the hub stops")


def try_destroy_again(draft: Draft, _event: events.TimerFired) -> State:
    draft.destroy()
    return INSUBSTANTIATING


def note_destroy_failed(draft: Draft, event: events.DestroyFailed) -> State:
    draft.retry_destroy(event.error)
    return INSUBSTANTIATING


def become_latent(draft: Draft, _event: events.Destroyed | events.Forgotten) -> State:
    """The instance is proven gone; only now does the row say so (V3)."""
    if draft.worker.policy.permanent:
        return leave_permanent(draft)
    draft.cancel(Timer.DESTROY)
    if draft.worker.destroy_attempts:
        draft.order(commands.Resolve("stop_failed", "its instance is proven gone"))
    _part_with_instance(draft)
    draft.order(commands.Forget() if draft.worker.removing else commands.OfferSlots())
    return LATENT


def lose_connection(draft: Draft, _event: events.Detached) -> State:
    draft.disconnect()
    return INSUBSTANTIATING


# --- a quarantine's end ------------------------------------------------------------------------


def end_quarantine(draft: Draft, _event: events.TimerFired) -> State:
    draft.leave_quarantine()
    draft.order(commands.OfferSlots())
    return draft.worker.state
