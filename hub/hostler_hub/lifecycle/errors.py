"""LifecycleError > IllegalTransition (a row the table does not have), InvariantViolated."""

from __future__ import annotations


class LifecycleError(Exception):
    """The lifecycle core was asked for, or arrived at, something that must not be."""


class IllegalTransition(LifecycleError):
    """An event that the table has no row for, or whose row was left by a door it does not have."""

    def __init__(self, worker: str, state: str, event: object, detail: str = "") -> None:
        self.worker = worker
        self.state = state
        self.event = event
        super().__init__(f"worker {worker} in state {state} cannot take {event!r}{detail}")


class InvariantViolated(LifecycleError):
    """A worker broke one of the invariants V1 to V18; the message names which and how."""
