"""What can happen to a worker. Every event says when (``at``, seconds since the epoch)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from hostler_hub.lifecycle.model import Mode, OperatorLease, Policy, Presence, Timer


@dataclass(frozen=True, slots=True)
class Because:
    """By which rule, and on which numbers, somebody decided; for the log of decisions."""

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
    """A build, or an operator, wants the worker up. ``instance`` is a fresh ULID to start it as."""

    instance: str
    cause: str
    because: Because | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unwanted(Event):
    """Nobody needs the instance any more: stop it if no lease holds it."""

    cause: str
    because: Because | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Created(Event):
    """The driver's create returned; the instance boots."""

    instance: str
    handle: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateFailed(Event):
    """The driver's create raised. The instance may exist all the same (P1)."""

    instance: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached(Event):
    """An agent that proved instance, epoch and token is connected and answered its settings.

    A permanent worker's agent arrives with a fresh ULID and without an epoch.
    """

    instance: str
    epoch: int | None
    connection: str
    resumable: bool
    resumes: bool = True  # it is the process that was attached before, with its commands


@dataclass(frozen=True, slots=True, kw_only=True)
class Detached(Event):
    """``leaves``: the agent has said that it does not come back, and has ended its commands."""

    connection: str
    cause: str
    leaves: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined(Event):
    """The attached agent's machine was compared with what is expected of it; ``cause``: with what
    outcome. ``exam`` says which Examine this answers."""

    exam: int
    met: bool
    cause: str

    noteworthy: ClassVar[bool] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Compromised(Event):
    """The instance's one-time token was used by somebody else too: neither can be trusted."""

    instance: str
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused(Event):
    """Somebody tried to attach as this worker and was sent away; ``alarm``: people should look."""

    cause: str
    alarm: bool = False

    noteworthy: ClassVar[bool] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Leased(Event):
    lease: str
    because: Because | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Released(Event):
    """A lease ended. ``finished``: the build has a result; ``clean``: V10's condition holds."""

    lease: str
    finished: bool
    clean: bool
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonAsked(Event):
    """A person asks for the whole worker; they get it once it is up and no build is on it."""

    lease: OperatorLease

    @property
    def cause(self) -> str:
        reason = f": {self.lease.reason}" if self.lease.reason else ""
        return f"{self.lease.holder} asks for it{reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonRenewed(Event):
    """The person's lease, or their wait for it, lasts until another instant."""

    lease: str
    until: float
    ttl_s: float
    reason: str | None
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonLeft(Event):
    """A person's lease ends, or their wait for it. ``keep``: None is what they asked for first."""

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
    """``keep_s``: what the timer would end is needed, or must be kept; ask again after so long."""

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

    ``kept``: its machine is there, stopped, for the worker's next instance.
    """

    instance: str
    kept: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DestroyFailed(Event):
    instance: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten(Event):
    """Somebody has looked and says that the instance, whose destroy keeps failing, is gone."""

    instance: str
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Redefined(Event):
    """The owner changed the definition; ``restart``: a running instance no longer fits it."""

    policy: Policy
    restart: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed(Event):
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered(Event):
    """The hub started and found this worker in its store: pick up what was under way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HubStopping(Event):
    """The hub stops: idle instances go, leased ones stay to be taken up at the next start."""
