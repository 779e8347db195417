"""The workers and events that tests of the core start from.

Every worker is reached by events, so that it is one that can be. Its instance is I0, of epoch 1;
its agent's connection c1; its leases L0, L1. Events happen at seconds: wanted at 0, created at 1,
attached at 2, leased at 3, and what a test is about later.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hostler_hub.lifecycle import (
    Gate,
    Mode,
    OperatorLease,
    Policy,
    Presence,
    Timer,
    Worker,
    check,
    check_transition,
    commands,
    events,
    step,
)
from hostler_hub.lifecycle.jitter import delay_to_next_s

POLICY = Policy(
    build_wait_timeout_s=600, missing_timeout_s=120, check_instance_interval_s=10, max_builds=2
)
HANDLE = {"pid": 1}
EXPECTS = "git >= 2.30"

# The words of facts and commands.
AS_EXPECTED = "it has all that is expected of it"
DIED = "its instance ended before the agent attached: exit 1"
DIFFERS = "not as expected: git: expected >=2.30, found 2.20"
GONE = "its instance is gone: exit 1"
NEVER_ATTACHED = "its agent did not attach within 120 s"
NOT_BACK = "its agent did not reconnect in time"
PID_LEFT = "a slot did not come back clean: pid 7 stays"
REPLACED = "replaced by a newer connection of the same agent"
UNCLEAN = "a slot did not come back clean"
UNCONTESTED = "the connection that was contested has ended"
CONTESTED = "another process came as its agent while the connection of the first one was open"
NOT_ITSELF = "its agent came back as another process, and nothing kept builds from its identity"
WITHOUT_BUILDS = "the agent came back without the commands it had (E9)"

ATTACH = Timer.ATTACH
CHECK = Timer.CHECK
DESTROY = Timer.DESTROY
IDLE = Timer.IDLE
MISSING = Timer.MISSING
MODE = Timer.MODE
PERSON = Timer.PERSON
QUARANTINE = Timer.QUARANTINE
RECONNECT = Timer.RECONNECT
UPTIME = Timer.UPTIME


def drive(worker: Worker, *happened: events.Event) -> tuple[Worker, list[commands.Command]]:
    """Apply events in order and check the invariants after each. Returns the last step's worker
    and commands."""
    ordered: list[commands.Command] = []
    for event in happened:
        before = worker
        worker, ordered = step(worker, event)
        check(worker)
        check_transition(before, worker)
    return worker, ordered


def after(worker: Worker, *happened: events.Event) -> Worker:
    """The worker after these events. What a table starts from is made while tests are collected,
    so nothing is checked here: each of these steps is a case somewhere, which checks it."""
    for event in happened:
        worker, _ = step(worker, event)
    return worker


def look_at(at: float, every_s: float = 10, instance: str = "I0") -> float:
    """When the instance is inspected next, seen from ``at``."""
    return at + delay_to_next_s(instance, at, every_s)


# --- workers -------------------------------------------------------------------------------------


def latent(**policy: Any) -> Worker:
    return Worker("w", replace(POLICY, **policy))


def substantiating(**policy: Any) -> Worker:
    """The create call has not returned."""
    return after(latent(**policy), wanted())


def booting(**policy: Any) -> Worker:
    """The create call has returned, and the agent has not attached."""
    return after(substantiating(**policy), created())


def substantiated(**policy: Any) -> Worker:
    return after(booting(**policy), attached())


def leased(*, leases: int = 1, **policy: Any) -> Worker:
    return after(substantiated(**policy), *(lease(f"L{number}") for number in range(leases)))


def insubstantiating(**policy: Any) -> Worker:
    return after(substantiated(**policy), unwanted())


def permanent(*, resumable: bool = False, **policy: Any) -> Worker:
    """A permanent worker with its agent attached, of instance I0."""
    return after(latent(permanent=True, **policy), came(resumable=resumable))


def cut(worker: Worker, at: float = 100) -> Worker:
    """The connection to the worker's agent is lost."""
    return after(worker, detached(at))


def known(worker: Worker) -> Worker:
    """The process of the worker's agent has the id n1."""
    return replace(worker, process="n1")


def in_mode(worker: Worker, mode: Mode, **details: Any) -> Worker:
    return after(worker, mode_set(mode, 20, **details))


def quarantined(worker: Worker, until: float = 12) -> Worker:
    timers = {**worker.timers, Timer.QUARANTINE: until}
    reason: dict[str, Any] = {"quarantine_reason": "504", "last_error": "504", "backoff_s": 10}
    return replace(worker, quarantine_until=until, timers=timers, **reason)


def failed_before(worker: Worker) -> Worker:
    """The worker's last start has failed."""
    return replace(worker, failed_starts=1)


def missing(worker: Worker) -> Worker:
    """Two starts have failed in a row, and people were told."""
    return replace(worker, failed_starts=2, missing_since=0.0, missing_reason="2 starts failed")


def reloaded(worker: Worker) -> Worker:
    """What the store keeps of a worker: nothing of its connection, timers and calls in progress."""
    gone: dict[str, Any] = {"connection": None, "resumable": False, "gate": Gate.OPEN, "exam": 0}
    return replace(worker, timers={}, destroying=False, **gone)


def examining(**policy: Any) -> Worker:
    """The agent is attached, and its machine is being compared with what is expected of it."""
    return substantiated(expects=EXPECTS, **policy)


def fit(**policy: Any) -> Worker:
    """The machine was found to be as expected."""
    return after(examining(**policy), examined())


def unfit_permanent() -> Worker:
    return after(permanent(expects=EXPECTS), examined(met=False))


def held(*, keep: bool = False, **policy: Any) -> Worker:
    """A person has the worker since second 5, until 305."""
    return after(substantiated(**policy), asked(keep=keep))


def person(**details: Any) -> OperatorLease:
    """What ann, who asked at second 5, has or waits for."""
    return replace(asked().lease, **details)


def policy(**details: Any) -> Policy:
    return replace(POLICY, **details)


# --- what changes --------------------------------------------------------------------------------


def changed(**facts: Any) -> dict[str, Any]:
    return facts


def quarantine(reason: str, until: float) -> dict[str, Any]:
    """The facts of a first quarantine, of 10 s."""
    first = {"quarantine_reason": reason, "quarantine_until": until, "backoff_s": 10}
    return {**first, "last_error": reason}


def order(mode: Mode, at: float = 30, until: float | None = None) -> dict[str, Any]:
    """The facts of what ann ordered."""
    return {"mode": mode, "mode_reason": "because", "mode_by": "ann", "mode_at": at} | (
        {} if until is None else {"mode_until": until}
    )


def order_over(mode: Mode, at: float) -> dict[str, Any]:
    """The facts of an order of ann's whose time is over."""
    why = {"mode_reason": f"{mode} by ann until now", "mode_by": "hub"}
    return {"mode": Mode.ACTIVE, "mode_at": at, "mode_until": None, **why}


def failures(starts: int, reason: str) -> str:
    return f"{starts} starts in a row have failed, the last one: {reason}"


# --- events --------------------------------------------------------------------------------------


def wanted(at: float = 0) -> events.Wanted:
    return events.Wanted(at=at, instance=f"I{at}", cause="build B")


def unwanted(at: float = 5) -> events.Unwanted:
    return events.Unwanted(at=at, cause="scale down")


def created(at: float = 1) -> events.Created:
    return events.Created(at=at, instance="I0", handle=HANDLE)


def create_failed(at: float = 1) -> events.CreateFailed:
    return events.CreateFailed(at=at, instance="I0", error="504")


def attached(at: float = 2, *, connection: str = "c1", **details: Any) -> events.Attached:
    agent = {"instance": "I0", "epoch": 1, "resumable": True, **details}
    return events.Attached(at=at, connection=connection, **agent)


def came(at: float = 2, **details: Any) -> events.Attached:
    """The agent of a permanent worker attaches: without an epoch."""
    return attached(at, **{"epoch": None, "resumable": False, **details})


def detached(at: float = 100, *, leaves: bool = False) -> events.Detached:
    return events.Detached(at=at, connection="c1", cause="cut", leaves=leaves)


def examined(exam: int = 1, *, met: bool = True, at: float = 3) -> events.Examined:
    return events.Examined(at=at, exam=exam, met=met, cause="as expected" if met else DIFFERS)


def compromised(at: float = 5) -> events.Compromised:
    return events.Compromised(at=at, instance="I0", cause="used twice")


def refused(*, alarm: bool = False) -> events.Refused:
    return events.Refused(at=30, cause="a second agent", alarm=alarm)


def lease(name: str = "L0", at: float = 3) -> events.Leased:
    return events.Leased(at=at, lease=name)


def released(
    name: str = "L0", at: float = 9, *, finished: bool = True, clean: bool = True
) -> events.Released:
    return events.Released(at=at, lease=name, finished=finished, clean=clean, cause="pid 7 stays")


def inspected(
    presence: Presence, at: float = 10, *, handle: dict[str, Any] | None = None
) -> events.Inspected:
    return events.Inspected(
        at=at, instance="I0", presence=presence, evidence="exit 1", handle=handle
    )


def destroyed(at: float = 6) -> events.Destroyed:
    return events.Destroyed(at=at, instance="I0")


def destroy_failed(at: float = 6) -> events.DestroyFailed:
    return events.DestroyFailed(at=at, instance="I0", error="busy")


def forgotten(at: float = 7) -> events.Forgotten:
    return events.Forgotten(at=at, instance="I0", cause="forgotten by ann: the host was sold")


def asked(at: float = 5, *, wait_s: float = 60, keep: bool = False) -> events.PersonAsked:
    lease = OperatorLease("P1", "ann", at, at + wait_s, ttl_s=300, reason="debugging", keep=keep)
    return events.PersonAsked(at=at, lease=lease)


def renewed(at: float = 100, person: str = "P1") -> events.PersonRenewed:
    return events.PersonRenewed(
        at=at, lease=person, until=at + 600, ttl_s=600, reason="more", by="ann"
    )


def left(at: float = 50, *, person: str = "P1", keep: bool | None = None) -> events.PersonLeft:
    return events.PersonLeft(at=at, lease=person, cause="released", keep=keep)


def mode_set(mode: Mode, at: float = 30, *, until: float | None = None) -> events.ModeSet:
    return events.ModeSet(at=at, mode=mode, reason="because", by="ann", until=until)


def redefined(at: float = 9, *, restart: bool = False, **policy: Any) -> events.Redefined:
    return events.Redefined(at=at, policy=replace(POLICY, **policy), restart=restart)


def removed(at: float = 5) -> events.Removed:
    return events.Removed(at=at, by="bob")


def recovered(at: float = 1000) -> events.Recovered:
    return events.Recovered(at=at)


def hub_stopping(at: float = 9) -> events.HubStopping:
    return events.HubStopping(at=at)


def fired(timer: Timer, at: float, *, keep_s: float | None = None) -> events.TimerFired:
    return events.TimerFired(at=at, timer=timer, keep_s=keep_s)
