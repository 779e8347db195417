"""What the core orders. Every command is idempotent: after a crash it is simply ordered again."""

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
    """Look whether the instance is there; answered by Inspected."""

    instance: str


@dataclass(frozen=True, slots=True)
class Destroy(Command):
    """Stop the instance and prove it gone; answered by Destroyed or DestroyFailed.

    ``failure`` says what went wrong, if that is why it is stopped: evidence is gathered first.
    ``keep``: it ends in good order, so that its machine may be kept, stopped, for the next instance
    where the driver does that.
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
    """Compare the machine of the agent on this connection with what is expected; answered by
    Examined, or not at all when the connection is lost meanwhile."""

    connection: str
    exam: int
    expects: Any


@dataclass(frozen=True, slots=True)
class SendAway(Command):
    """Tell the agent on this connection to go away and not to come back, then close."""

    connection: str
    reason: str


@dataclass(frozen=True, slots=True)
class LoseLeases(Command):
    """Give the builds of these leases back to the queue.

    ``still_running``: nothing says that the builds have ended on the instance, which is to end.
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
    """Something became possible: let the dispatcher look."""


@dataclass(frozen=True, slots=True)
class Notify(Command):
    """Tell people of an incident; nothing more is said of one that is open already (V16)."""

    incident: str
    detail: str


@dataclass(frozen=True, slots=True)
class Resolve(Command):
    """An incident is over, if one of this kind is open."""

    incident: str
    detail: str


@dataclass(frozen=True, slots=True)
class Forget(Command):
    """The worker was removed and its last instance is proven gone: delete its row."""
