"""The commands that the core orders. Each is idempotent: after a crash it is ordered again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hostler_hub.lifecycle.model import OperatorLease, Timer


@dataclass(frozen=True, slots=True)
class Command:
    pass


@dataclass(frozen=True, slots=True)
class Create(Command):
    """Start the instance with the driver; answered by Created or CreateFailed."""

    instance: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Inspect(Command):
    """Ask the driver whether the instance exists; answered by Inspected."""

    instance: str


@dataclass(frozen=True, slots=True)
class Destroy(Command):
    """Stop the instance and prove it gone; answered by Destroyed or DestroyFailed.

    ``failure`` says what went wrong if the instance is stopped because of it: evidence is collected
    first. ``keep``: the instance ends in good order, so its machine may be kept, stopped, for the
    next instance, where the driver can do that.
    """

    instance: str
    failure: str | None = None
    keep: bool = False


@dataclass(frozen=True, slots=True)
class SetTimer(Command):
    timer: Timer
    at: float


@dataclass(frozen=True, slots=True)
class CancelTimer(Command):
    timer: Timer


@dataclass(frozen=True, slots=True)
class Examine(Command):
    """Compare the machine of the agent on this connection with what its worker expects. Answered by
    Examined, or not at all if the connection is lost meanwhile.
    """

    connection: str
    exam: int
    expects: Any


@dataclass(frozen=True, slots=True)
class SendAway(Command):
    """Tell the agent on this connection to end and not to come back; then close the connection."""

    connection: str
    reason: str


@dataclass(frozen=True, slots=True)
class TurnAway(Command):
    """Close this connection of an agent, which may come back later."""

    connection: str
    reason: str


@dataclass(frozen=True, slots=True)
class LoseLeases(Command):
    """Give the builds of these leases back to the queue.

    ``still_running``: there is no evidence that the builds have ended on the instance, which is to
    be stopped.
    """

    leases: tuple[str, ...]
    reason: str
    still_running: bool = False


@dataclass(frozen=True, slots=True)
class TellPerson(Command):
    """A person's lease was granted or renewed, or is over, and why: wake who waits for it."""

    lease: OperatorLease
    over: str | None = None


@dataclass(frozen=True, slots=True)
class OfferSlots(Command):
    """A slot may have become free: wake the dispatcher."""


@dataclass(frozen=True, slots=True)
class Notify(Command):
    """Open an incident and notify people. Does nothing if one of this kind is open for the worker
    (V16).
    """

    incident: str
    detail: str


@dataclass(frozen=True, slots=True)
class Resolve(Command):
    """Close the worker's incident of this kind, if one is open."""

    incident: str
    detail: str


@dataclass(frozen=True, slots=True)
class Forget(Command):
    """Delete the worker's row: it was removed, and its last instance is proven gone."""
