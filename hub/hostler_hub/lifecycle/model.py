"""The model of a worker: five facts that are kept apart, and not multiplied into one state.

*mode* is what the operator wants, *state* is what became of the instance, *connection* says whether
its agent is attached, *leases* who uses it, and *quarantine* whether it may be used. Instants are
seconds since the epoch, durations are seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any


class Mode(StrEnum):
    """What an operator wants of a worker."""

    ACTIVE = "active"
    PAUSED = "paused"  # no new lease; what runs goes on
    DRAINING = "draining"  # finish what runs, then stop the instance
    STOPPED = "stopped"  # stop the instance now


class State(StrEnum):
    """The state of the worker's instance, in Buildbot's terms."""

    LATENT = "latent"
    SUBSTANTIATING = "substantiating"
    SUBSTANTIATED = "substantiated"
    INSUBSTANTIATING = "insubstantiating"


class Gate(StrEnum):
    """Whether the attached agent's machine is what its worker's definition expects."""

    OPEN = "open"  # it is, or nothing is expected
    ASKING = "asking"  # it is being looked at
    SHUT = "shut"  # it is not; looked at again when the quarantine is over


class Presence(StrEnum):
    """What a driver reports of an instance. UNKNOWN never counts as GONE (P3, V3)."""

    RUNNING = "running"
    GONE = "gone"
    UNKNOWN = "unknown"


class Timer(StrEnum):
    """The timers of a worker."""

    ATTACH = "attach"  # the agent of a new instance
    CHECK = "check"  # the next look at the instance
    IDLE = "idle"  # build_wait_timeout
    RECONNECT = "reconnect"  # a lost agent, while its leases may still be resumed
    DESTROY = "destroy"  # the next try of a failed destroy
    QUARANTINE = "quarantine"  # its end
    MISSING = "missing"  # an agent that should be attached
    PERSON = "person"  # the end of a person's lease, or of their wait for it
    MODE = "mode"  # the end of what an operator ordered
    UPTIME = "uptime"  # max_uptime


@dataclass(frozen=True, slots=True)
class Policy:
    """The part of a worker's definition that the lifecycle acts upon (durations in seconds)."""

    build_wait_timeout_s: float = 600.0  # 0: stop at once; negative: only when the hub stops
    missing_timeout_s: float = 120.0
    check_instance_interval_s: float = 10.0
    max_builds: int = 1
    max_uses: int | None = None  # builds that one instance is good for
    max_uptime_s: float | None = None  # and for how long it gets new ones
    lease_ttl_s: float = 300.0
    permanent: bool = False  # its owner starts it; it attaches by itself
    expects: Any = None  # of its machine; the core only sees whether that has changed


@dataclass(frozen=True, slots=True)
class Instance:
    """One incarnation of a worker. ``handle`` is what the driver returned; None before that."""

    id: str
    epoch: int
    handle: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class OperatorLease:
    """All slots of a worker for one person. Until it is granted they wait for it, no longer than
    ``until``; then it lasts until ``until``."""

    id: str
    holder: str
    asked_at: float
    until: float
    ttl_s: float
    reason: str | None = None
    keep: bool = False  # the instance is not replaced afterwards
    granted_at: float | None = None

    @property
    def granted(self) -> bool:
        return self.granted_at is not None


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker as the core sees it. Immutable: a step returns a new one."""

    name: str
    policy: Policy
    mode: Mode = Mode.ACTIVE
    mode_reason: str | None = None
    mode_by: str | None = None
    mode_at: float | None = None
    mode_until: float | None = None  # then it is active again
    state: State = State.LATENT
    state_since: float = 0.0
    epoch: int = 0
    instance: Instance | None = None
    connection: str | None = None
    process: str | None = None  # of the instance's agent that attached last, if it reported one
    resumable: bool = False  # the attached agent can take up its commands after a reconnect
    gate: Gate = Gate.OPEN
    exam: int = 0  # which look at its machine was the last; answers to older ones are late
    leases: tuple[str, ...] = ()
    up_since: float | None = None  # when the instance's agent attached first
    uses: int = 0  # leases that the instance has given
    retiring: str | None = None  # why it gives no more, though it is clean
    person: OperatorLease | None = None
    tainted: bool = False  # a slot did not come back clean: no new lease on this instance (V10)
    quarantine_until: float | None = None
    quarantine_reason: str | None = None
    backoff_s: float = 0.0  # the last quarantine's length; kept until a build finishes
    missing_since: float | None = None
    missing_reason: str | None = None
    failed_starts: int = 0  # in a row, without an attached and fit agent between them
    last_error: str | None = None
    removing: bool = False
    destroying: bool = False  # a destroy call is under way
    destroy_attempts: int = 0
    timers: Mapping[Timer, float] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def attached(self) -> bool:
        return self.connection is not None

    @property
    def in_use(self) -> bool:
        """Whether a build or an operator has a lease: then the instance is not stopped without an
        order (V9).
        """
        return bool(self.leases) or (self.person is not None and self.person.granted)

    @property
    def free_slots(self) -> int:
        return max(0, min(self.policy.max_builds - len(self.leases), self.uses_left))

    @property
    def uses_left(self) -> int:
        """How many more leases the instance is good for; without `max_uses`, the number of its
        slots.
        """
        most = self.policy.max_builds if self.policy.max_uses is None else self.policy.max_uses
        return most if self.policy.max_uses is None else max(0, most - self.uses)


def why_not_startable(worker: Worker) -> str | None:
    """Why no instance may be started for a build now, or None if one may (V11)."""
    return why_reserved(worker) or why_no_instance(worker)


def why_no_instance(worker: Worker) -> str | None:
    """Why no instance may be started for an operator or a build now, or None if one may (V11)."""
    if worker.policy.permanent:
        return "it is started by its owner and is not attached"
    if worker.state is State.INSUBSTANTIATING:
        return "its last instance is still being stopped"
    return why_not_usable(worker)


def why_not_leasable(worker: Worker) -> str | None:
    """Why no build may get a slot of the worker now, or None if one may (V4, V10, V11)."""
    refusal = why_reserved(worker) or why_not_up(worker)
    if refusal is None and (reason := why_retiring(worker)) is not None:
        refusal = f"its instance is to be replaced: {reason}"
    if refusal is None and not worker.free_slots:
        refusal = f"all {worker.policy.max_builds} of its slots are leased"
    return refusal


def why_not_askable(worker: Worker) -> str | None:
    """Why an operator may not even wait for the worker, or None if they may (V11)."""
    return why_reserved(worker) or why_not_usable(replace(worker, tainted=False, retiring=None))


def why_not_grantable(worker: Worker) -> str | None:
    """Why the operator who waits for the worker does not get it now, or None if they do
    (V5, V11).
    """
    refusal = why_not_up(worker)
    if refusal is None and worker.leases:
        count = len(worker.leases)
        refusal = f"{count} build{'' if count == 1 else 's'} on it must end first"
    return refusal


def why_not_up(worker: Worker) -> str | None:
    """Why nobody could use the worker now, or None if somebody could."""
    refusal = why_not_usable(worker)
    if refusal is None and worker.state is not State.SUBSTANTIATED:
        refusal = f"it is {worker.state}"
    if refusal is None and not worker.attached:
        refusal = "its agent is not attached"
    if refusal is None and worker.gate is not Gate.OPEN:
        refusal = "its machine is being compared with what is expected of it"
    return refusal


def why_retiring(worker: Worker) -> str | None:
    """Why the instance gets no new lease and goes with its last one, although it is clean;
    or None.
    """
    if worker.retiring is not None or worker.uses_left:
        return worker.retiring
    return f"it has had its {worker.policy.max_uses} builds"


def is_sound(worker: Worker) -> bool:
    """Whether the instance's machine could be used again: nothing is known against it."""
    at_rest = not worker.in_use and not worker.removing
    clean = not worker.tainted and worker.quarantine_until is None and worker.gate is Gate.OPEN
    return at_rest and clean and why_retiring(worker) is None


def why_reserved(worker: Worker) -> str | None:
    """The operator who has the worker or waits for it, in words; or None. No build gets a slot
    meanwhile.
    """
    person = worker.person
    if person is None:
        return None
    reason = f": {person.reason}" if person.reason else ""
    if not person.granted:
        return f"{person.holder} waits to lease it{reason}"
    until = datetime.fromtimestamp(person.until, UTC)
    return f"it is leased by {person.holder} until {until:%Y-%m-%d %H:%M} UTC{reason}"


def why_not_usable(worker: Worker) -> str | None:
    """Why an operator's order, a quarantine or a removal forbids new work, or None (V11)."""
    if worker.removing:
        return "it is being removed"
    if worker.mode is not Mode.ACTIVE:
        reason = f": {worker.mode_reason}" if worker.mode_reason else ""
        return f"it is {worker.mode}{reason}"
    if worker.quarantine_until is not None:
        return f"it is quarantined: {worker.quarantine_reason}"
    if worker.tainted:
        return "a slot did not come back clean; its instance is replaced when the others end"
    return None
