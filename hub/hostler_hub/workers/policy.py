"""What the controller asks of whoever sees the whole fleet, where a worker's own life is not all.

Called under the worker's lock, so that what is answered still holds when the step is committed:
work that is queued meanwhile finds the lock taken, and loses or wins the row (V9, P20).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from hostler_hub.lifecycle import commands, events
from hostler_hub.workers.decisions import Decision, Step, of_step
from hostler_hub.workers.registry import Entry


class Oversight(Protocol):
    """Judges events before their step, explains the step, and hears when it is committed."""

    def judge(self, entry: Entry, event: events.Event) -> events.Event:
        """The event as it may happen: a timer that would end what is needed is put off."""

    def group_of(self, entry: Entry) -> str | None:
        """The group the worker is of, if any."""

    def decisions(self, entry: Entry, step: Step) -> Sequence[Decision]:
        """What was decided; it is written with the step."""

    def orders(self, entry: Entry, step: Step) -> Sequence[commands.Command]:
        """What is to be done beside what the step itself orders."""

    def happened(self, entry: Entry, step: Step, decided: Sequence[Decision]) -> None:
        """It is committed."""


class Unattended:
    """Nobody sees the whole fleet: each worker lives by its own timers."""

    def judge(self, entry: Entry, event: events.Event) -> events.Event:  # noqa: ARG002
        return event

    def group_of(self, entry: Entry) -> str | None:  # noqa: ARG002
        return None

    def decisions(self, entry: Entry, step: Step) -> Sequence[Decision]:  # noqa: ARG002
        return of_step(step)

    def orders(self, entry: Entry, step: Step) -> Sequence[commands.Command]:  # noqa: ARG002
        return ()

    def happened(self, entry: Entry, step: Step, decided: Sequence[Decision]) -> None:
        """Nothing is kept."""
