"""The invariants V1 to V18, as far as they show in one worker. They are checked after every
step.
"""

from __future__ import annotations

from collections.abc import Callable

from hostler_hub.lifecycle.errors import InvariantViolated
from hostler_hub.lifecycle.model import Gate, Mode, State, Timer, Worker

_UP = {State.SUBSTANTIATING, State.SUBSTANTIATED}


def check(worker: Worker) -> None:
    """Raise InvariantViolated if ``worker`` breaks an invariant."""
    for rule in _RULES:
        complaint = rule(worker)
        if complaint is not None:
            raise InvariantViolated(f"worker {worker.name}: {complaint} ({worker!r})")


def check_transition(before: Worker, after: Worker) -> None:
    """Check the invariants that compare a worker before and after a step. V4 and V3: a new instance
    has the next epoch. V11: a machine that was not examined gets no lease.
    """
    if before.gate is not Gate.OPEN and set(after.leases) - set(before.leases):
        raise InvariantViolated(f"V11 worker {after.name}: leased before it was looked at")
    if after.epoch < before.epoch:
        raise InvariantViolated(f"V4 worker {after.name}: epoch fell to {after.epoch}")
    changed = before.instance is None or (
        after.instance is not None and after.instance.id != before.instance.id
    )
    if after.instance is not None and changed and after.epoch != before.epoch + 1:
        raise InvariantViolated(f"V4 worker {after.name}: a new instance without a new epoch")
    replaced = before.instance is not None and changed and after.instance is not None
    if replaced:
        raise InvariantViolated(f"V3 worker {after.name}: an instance was replaced while it lived")


def _instance_matches_state(worker: Worker) -> str | None:
    if (worker.instance is None) != (worker.state is State.LATENT):
        return "V4 it has an instance exactly when it is not latent"
    if worker.instance is not None and worker.instance.epoch != worker.epoch:
        return "V4 its instance is of another epoch"
    return None


def _leases_are_held(worker: Worker) -> str | None:
    if worker.leases and worker.state is not State.SUBSTANTIATED:
        return "V9 leases without a substantiated instance"
    if len(set(worker.leases)) != len(worker.leases):
        return "V5 one lease twice"
    return None


def _a_person_is_alone(worker: Worker) -> str | None:
    if worker.person is None or not worker.person.granted:
        return None
    if worker.leases:
        return "V5 leased by a person, and by builds"
    if worker.state is not State.SUBSTANTIATED:
        return "V9 leased by a person without a substantiated instance"
    return None


def _connection_has_instance(worker: Worker) -> str | None:
    allowed = {State.SUBSTANTIATED, State.INSUBSTANTIATING}
    if worker.attached and worker.state not in allowed:
        return "V4 an agent is attached to no instance"
    return None


def _gate_is_of_an_agent(worker: Worker) -> str | None:
    if worker.gate is not Gate.OPEN and not worker.attached:
        return "V11 its machine is looked at, and no agent is attached"
    return None


def _orders_are_obeyed(worker: Worker) -> str | None:
    if worker.mode is Mode.STOPPED and worker.state in _UP:
        return "V11 stopped, and up"
    if worker.mode is Mode.DRAINING and worker.state in _UP and not worker.in_use:
        return "V11 draining, without a lease, and up"
    if worker.removing and worker.state in _UP:
        return "V11 being removed, and up"
    return None


def _something_will_happen(worker: Worker) -> str | None:
    """V17: every state has a timer or an answer to wait for."""
    state, timers, policy = worker.state, worker.timers, worker.policy
    waits = {
        "starts without a deadline": state is State.SUBSTANTIATING and Timer.ATTACH not in timers,
        "is lost without a deadline": state is State.SUBSTANTIATED
        and not worker.attached
        and Timer.RECONNECT not in timers,
        "is idle without a deadline": state is State.SUBSTANTIATED
        and worker.attached
        and not worker.in_use
        and policy.build_wait_timeout_s >= 0
        and not policy.permanent
        and Timer.IDLE not in timers,
        "stops without trying": state is State.INSUBSTANTIATING
        and not worker.destroying
        and Timer.DESTROY not in timers,
        "is promised to a person for ever": worker.person is not None
        and Timer.PERSON not in timers,
        "is up for ever": state is State.SUBSTANTIATED
        and policy.max_uptime_s is not None
        and not policy.permanent
        and worker.retiring is None
        and Timer.UPTIME not in timers,
        "holds an order beyond its end": worker.mode_until is not None and Timer.MODE not in timers,
        "is shut out for ever": worker.gate is Gate.SHUT and worker.quarantine_until is None,
        "is quarantined for ever": worker.quarantine_until is not None
        and Timer.QUARANTINE not in timers,
    }
    for complaint, holds in waits.items():
        if holds:
            return f"V17 it {complaint}"
    return None


_RULES: tuple[Callable[[Worker], str | None], ...] = (
    _instance_matches_state,
    _leases_are_held,
    _a_person_is_alone,
    _connection_has_instance,
    _gate_is_of_an_agent,
    _orders_are_obeyed,
    _something_will_happen,
)
