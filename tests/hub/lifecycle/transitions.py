"""The form of the tables of transitions: one step a row, and all that it changes and orders."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from given import drive

from hostler_hub.lifecycle import State, Timer, Worker, commands, events

# Checked by themselves: the state by `to`, and the rest by what follows from it.
_APART = {"state", "state_since", "timers"}


@dataclass(frozen=True)
class Case:
    """``given`` takes ``event`` and is then in state ``to``; nothing changes that is not named.

    ``facts`` are all other fields that change, with their new values. ``timers`` are all timers
    that run afterwards; None means the same as before, without the one that has fired.
    ``orders`` are all commands, in their order, but those that set and cancel timers.
    """

    given: Worker
    event: events.Event
    to: State
    facts: Mapping[str, Any] = field(default_factory=dict)
    timers: Mapping[Timer, float] | None = None
    orders: Sequence[commands.Command] = ()
    why: str = ""

    @property
    def timer(self) -> Timer | None:
        return self.event.timer if isinstance(self.event, events.TimerFired) else None

    def __str__(self) -> str:
        words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(self.event).__name__).lower()
        details = [getattr(self.event, each, None) for each in ("timer", "presence", "mode")]
        what = " ".join([words, *(each for each in details if each is not None)])
        why = f": {self.why}" if self.why else ""
        return f"{self.given.state} + {what} -> {self.to}{why}"


def verify(case: Case) -> None:
    """Take the step, and assert what the case says of it and nothing else."""
    worker, ordered = drive(case.given, case.event)
    assert worker.state is case.to
    moved = worker.state is not case.given.state
    assert worker.state_since == (case.event.at if moved else case.given.state_since)
    assert _changes(case.given, worker) == case.facts
    left = {timer: at for timer, at in case.given.timers.items() if timer is not case.timer}
    assert worker.timers == (left if case.timers is None else case.timers)
    assert _obeyed(left, ordered) == worker.timers
    assert [each for each in ordered if not isinstance(each, _OF_TIMERS)] == list(case.orders)


_OF_TIMERS = (commands.SetTimer, commands.CancelTimer)


def _changes(before: Worker, after: Worker) -> dict[str, Any]:
    names = [each.name for each in fields(Worker) if each.name not in _APART]
    both = {name: (getattr(before, name), getattr(after, name)) for name in names}
    return {name: new for name, (old, new) in both.items() if new != old}


def _obeyed(timers: Mapping[Timer, float], ordered: Sequence[commands.Command]) -> object:
    """The timers of a shell that obeys the commands."""
    running = dict(timers)
    for command in ordered:
        if isinstance(command, commands.SetTimer):
            running[command.timer] = command.at
        elif isinstance(command, commands.CancelTimer):
            del running[command.timer]
    return running
