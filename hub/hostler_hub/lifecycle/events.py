"""What can happen to a worker. ``at`` is when, in seconds since the epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from hostler_hub.lifecycle.model import Mode, OperatorLease, Policy, Presence, Timer


@dataclass(frozen=True, slots=True)
class Because:
    """The rule and the numbers of a decision, for the decision log."""

    rule: str
    build: str | None = None
    numbers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    at: float

    noteworthy: ClassVar[bool] = False
    """Recorded also where it changes nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted(Event):
    """A build or an operator wants the worker to be up. ``instance`` is a fresh ULID for its
    instance.
    """

    instance: str
    cause: str
    because: Because | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unwanted(Event):
    """Nobody needs the instance any more: it is stopped unless it has a lease."""

    cause: str
    because: Because | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Created(Event):
    """The driver's create returned; the instance boots."""

    instance: str
    handle: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateFailed(Event):
    """The driver's create raised. The instance may exist nevertheless (P1). ``refused``: the
    worker's own options can never work, which says nothing of other workers.
    """

    instance: str
    error: str
    refused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached(Event):
    """An agent with the right instance, epoch and token has connected and answered its settings.

    A permanent worker's agent brings a fresh ULID and no epoch. ``process`` is the id of the
    agent's process, which no other process knows; a stock worker reports none. ``proven``: it is
    no build that has stolen what its agent attaches with.
    """

    instance: str
    epoch: int | None
    connection: str
    resumable: bool
    resumes: bool = True  # it is the process that was attached before, with its commands
    process: str | None = None
    proven: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Detached(Event):
    """The agent's connection has ended. ``leaves``: the agent said that it will not come back, and
    has ended its commands.
    """

    connection: str
    cause: str
    leaves: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined(Event):
    """The attached agent's machine was compared with what its worker expects. ``cause`` is the
    result in words, ``exam`` the number of the Examine that this answers.
    """

    exam: int
    met: bool
    cause: str

    noteworthy: ClassVar[bool] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Compromised(Event):
    """A second party has used the instance's one-time token, so neither can be trusted."""

    instance: str
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused(Event):
    """An attempt to attach as this worker was refused. ``alarm``: people should be notified."""

    cause: str
    alarm: bool = False

    noteworthy: ClassVar[bool] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Leased(Event):
    lease: str
    because: Because | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Released(Event):
    """A lease has ended. ``finished``: the build has a result. ``clean``: the slot may be used
    again (V10).
    """

    lease: str
    finished: bool
    clean: bool
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonAsked(Event):
    """An operator asks for the whole worker, and gets it once it is up and no build is on it."""

    lease: OperatorLease

    @property
    def cause(self) -> str:
        reason = f": {self.lease.reason}" if self.lease.reason else ""
        return f"{self.lease.holder} asks for it{reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonRenewed(Event):
    """The operator's lease, or their wait for it, lasts until another instant."""

    lease: str
    until: float
    ttl_s: float
    reason: str | None
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonLeft(Event):
    """An operator's lease, or their wait for it, ends. ``keep`` overrides what they asked for; None
    does not.
    """

    lease: str
    cause: str
    keep: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModeSet(Event):
    mode: Mode
    reason: str | None
    by: str
    until: float | None = None  # then it is active again


@dataclass(frozen=True, slots=True, kw_only=True)
class TimerFired(Event):
    """A timer is due. ``keep_s``: the instance that it would stop is needed; set the timer again
    for so long.
    """

    timer: Timer
    keep_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspected(Event):
    instance: str
    presence: Presence
    evidence: str
    handle: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Destroyed(Event):
    """The driver has positive evidence that the instance is gone (V3).

    ``kept``: its machine still exists, stopped, for the worker's next instance.
    """

    instance: str
    kept: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DestroyFailed(Event):
    instance: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten(Event):
    """An operator has checked that the instance, whose destroy keeps failing, is gone."""

    instance: str
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Redefined(Event):
    """The owner changed the definition. ``restart``: a running instance does not fit it any
    more.
    """

    policy: Policy
    restart: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed(Event):
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered(Event):
    """The hub has started and found this worker in its store: it resumes what was in progress."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HubStopping(Event):
    """The hub stops. Idle instances are stopped; leased ones stay, and are resumed at the next
    start.
    """
