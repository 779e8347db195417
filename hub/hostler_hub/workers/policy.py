"""What the controller asks of the policy that knows all workers, where one worker does not decide.

The controller calls it under the worker's lock, so that its answer still holds when the transition
is committed: work that is queued meanwhile finds the lock taken, and loses or wins the row (V9,
P20).
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
        """The event as it is to be handled: a timer that would end what is needed is postponed."""

    def group_of(self, entry: Entry) -> str | None:
        """The name of the group that the worker is in, if any."""

    def decisions(self, entry: Entry, transition: Transition) -> Sequence[Decision]:
        """The decisions in the transition; they are written in its transaction."""

    def orders(self, entry: Entry, transition: Transition) -> Sequence[commands.Command]:
        """Commands to carry out beside those that the transition itself ordered."""

    def happened(self, entry: Entry, transition: Transition, decided: Sequence[Decision]) -> None:
        """Take note of a transition that has been committed."""
