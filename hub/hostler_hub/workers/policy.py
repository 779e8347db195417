"""The fleet's policy: what the controller asks where one worker's life alone does not decide.

The controller calls it under the worker's lock, so that its answer still holds when the transition
is committed: work that is queued meanwhile waits for the lock, and then gets the worker or finds it
stopping (V9, P20).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from hostler_hub.lifecycle import commands, events
from hostler_hub.workers.decisions import Decision, Transition
from hostler_hub.workers.registry import Entry


class FleetPolicy(Protocol):
    """Judges an event before its transition, explains the transition, and follows its commit."""

    def judge(self, entry: Entry, event: events.Event) -> events.Event:
        """The event to handle instead of ``event``, usually itself.

        A timer that would stop an instance which is still needed is postponed.
        """

    def group_of(self, entry: Entry) -> str | None:
        """The name of the group that the worker is in, if any."""

    def decisions(self, entry: Entry, transition: Transition) -> Sequence[Decision]:
        """The decisions that the transition contains; they are written in its transaction."""

    def orders(self, entry: Entry, transition: Transition) -> Sequence[commands.Command]:
        """Commands to carry out in addition to those that the transition ordered."""

    def happened(self, entry: Entry, transition: Transition, decided: Sequence[Decision]) -> None:
        """Note a transition that has been committed, and the decisions it contained."""
