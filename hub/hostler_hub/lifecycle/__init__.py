"""The lifecycle core: decides what happens to a worker, without I/O.

``step(worker, event) -> (worker, commands)``. The shell around it (``workers.controller``) stores
the new worker before it executes a command, and turns each outcome into the next event.
"""

from hostler_hub.lifecycle import commands, events
from hostler_hub.lifecycle.errors import IllegalTransition, InvariantViolated
from hostler_hub.lifecycle.invariants import check, check_transition
from hostler_hub.lifecycle.model import (
    Gate,
    Instance,
    Mode,
    OperatorLease,
    Policy,
    Presence,
    State,
    Timer,
    Worker,
)
from hostler_hub.lifecycle.step import step

__all__ = [
    "Gate",
    "IllegalTransition",
    "Instance",
    "InvariantViolated",
    "Mode",
    "OperatorLease",
    "Policy",
    "Presence",
    "State",
    "Timer",
    "Worker",
    "check",
    "check_transition",
    "commands",
    "events",
    "step",
]
