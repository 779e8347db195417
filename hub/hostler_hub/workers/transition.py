"""A worker's transition that the controller has decided, and the rows that it is committed as."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from hostler_hub.lifecycle import Worker, commands, events
from hostler_hub.runtime.passwords import hash_of
from hostler_hub.store import decisions as decision_rows
from hostler_hub.store import events as event_rows
from hostler_hub.store import operator_leases, workers
from hostler_hub.workers.decisions import Decision, Transition, cause_of
from hostler_hub.workers.incidents import Alarm
from hostler_hub.workers.registry import Entry
from hostler_hub.workers.rows import columns_of

ExtraWrite = Callable[[Connection], None]


@dataclass(frozen=True, slots=True, eq=False)
class PendingTransition:
    """A transition that is decided but not yet committed.

    It is compared by identity, which is fast: one transaction may commit many.
    """

    entry: Entry
    event: events.Event
    before: Worker
    after: Worker
    ordered: list[commands.Command]
    alarms: Sequence[Alarm]
    token: str | None
    transition: Transition
    decisions: Sequence[Decision]

    @property
    def forgets(self) -> bool:
        return any(isinstance(command, commands.Forget) for command in self.ordered)

    @property
    def persists(self) -> bool:
        """Whether the transition is worth a row: most inspections of an instance change nothing."""
        if self.event.noteworthy or self.forgets or self.alarms or self.decisions:
            return True
        if self.before.process != self.after.process:
            return True
        return columns_of(self.before) != columns_of(self.after)


def write(
    c: Connection, decided: Sequence[PendingTransition], extra_write: ExtraWrite | None
) -> None:
    """Write the transitions, and what ``extra_write`` writes, in the caller's transaction.

    Raises the store's error for a row that has changed meanwhile.
    """
    for each in decided:
        _write_one(c, each)
    event_rows.append(c, [_event_row(each) for each in decided if each.persists])
    decision_rows.append(c, [made.row() for each in decided for made in each.decisions])
    operator_leases.append(c, [row for each in decided for row in _past_leases(each)])
    if extra_write is not None:
        extra_write(c)


def _write_one(c: Connection, each: PendingTransition) -> None:
    before, after = each.before, each.after
    for alarm in each.alarms:
        alarm.write(c)
    if each.forgets:
        _end_instance(c, each)
        workers.delete(c, after.name)
        return
    # The revision is the compare-and-set that a lease and a stop both have to win (V9, P20).
    workers.update(c, after.name, each.entry.revision, columns_of(after))
    if before.instance is not None and after.instance is None:
        _end_instance(c, each)
    elif after.instance is not None and before.process != after.process:
        workers.note_process(c, after.instance.id, after.process)
    if before.instance is None and after.instance is not None:
        workers.open_instance(
            c,
            {
                "id": after.instance.id,
                "worker": after.name,
                "epoch": after.epoch,
                "token_hash": None if each.token is None else hash_of(each.token),
                "session_hash": None,
                "process": after.process,
                "created_at": each.event.at,
                "ended_at": None,
                "end_reason": None,
                "driver": each.entry.origin.driver,
                "driver_options": dict(each.entry.origin.options),
            },
        )


def _end_instance(c: Connection, each: PendingTransition) -> None:
    if each.before.instance is not None:
        kept = isinstance(each.event, events.Destroyed) and each.event.kept
        reason = "stopped; its machine is kept" if kept else cause_of(each.event)
        workers.end_instance(c, each.before.instance.id, each.event.at, reason, kept=kept)


def _past_leases(each: PendingTransition) -> list[dict[str, Any]]:
    """Rows of the operators' leases that this transition ended."""
    instance = each.before.instance
    return [
        {
            "id": command.lease.id,
            "worker": each.after.name,
            "instance": instance.id if instance and command.lease.granted else None,
            "lease": dataclasses.asdict(command.lease),
            "ended_at": each.event.at,
            "end_reason": command.over,
        }
        for command in each.ordered
        if isinstance(command, commands.TellPerson) and command.over is not None
    ]


def _event_row(each: PendingTransition) -> dict[str, Any]:
    instance = each.after.instance or each.before.instance
    return {
        "at": each.event.at,
        "worker": each.after.name,
        "instance": instance.id if instance else None,
        "epoch": each.after.epoch,
        "event": type(each.event).__name__,
        "from_state": each.before.state.value,
        "to_state": each.after.state.value,
        "cause": cause_of(each.event),
    }
