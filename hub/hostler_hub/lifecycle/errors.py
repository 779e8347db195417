"""What the lifecycle core raises; each is a defect of the hub.

LifecycleError
├── IllegalTransition    the table has no row for the event, or the row not this next state
└── InvariantViolated    a worker breaks one of the invariants V1 to V18
"""

from __future__ import annotations


class LifecycleError(Exception):
    """Base of the errors of the lifecycle core."""


class IllegalTransition(LifecycleError):
    """The table has no row for this state and event, or its row does not allow the state that the
    action returned.
    """

    def __init__(self, worker: str, state: str, event: object, detail: str = "") -> None:
        self.worker = worker
        self.state = state
        self.event = event
        super().__init__(f"worker {worker} in state {state} cannot take {event!r}{detail}")


class InvariantViolated(LifecycleError):
    """A worker broke one of the invariants V1 to V18; the message names which and how."""
