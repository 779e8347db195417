"""A transition being made: the new worker, and the commands that belong to it."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Any

from hostler_hub.lifecycle import commands
from hostler_hub.lifecycle.backoff import Backoff
from hostler_hub.lifecycle.jitter import delay_to_next_s
from hostler_hub.lifecycle.model import Gate, Mode, Timer, Worker

QUARANTINE = Backoff(first_s=10.0, longest_s=3600.0)
DESTROY_RETRY = Backoff(first_s=1.0, longest_s=300.0)
STOP_ALARM_S = 900.0
TELLING_STARTS = 2
ATTACHED_INTERVALS = 6
# How often what a hold forbids is asked for again. Its end does not wait for that.
HOLD_AGAIN_S = 60.0


class Draft:
    """Collects the changes and commands of an action. Only ``step()`` assigns the state."""

    def __init__(self, worker: Worker, at: float) -> None:
        self.worker = worker
        self.at = at
        self.commands: list[commands.Command] = []

    def set(self, **changes: Any) -> None:
        self.worker = replace(self.worker, **changes)

    def order(self, command: commands.Command) -> None:
        self.commands.append(command)

    def timer(self, timer: Timer, after_s: float) -> None:
        at = self.at + after_s
        self.set(timers=MappingProxyType({**self.worker.timers, timer: at}))
        self.order(commands.SetTimer(timer, at))

    def cancel(self, *timers: Timer) -> None:
        for timer in timers:
            if timer in self.worker.timers:
                left = {t: at for t, at in self.worker.timers.items() if t is not timer}
                self.set(timers=MappingProxyType(left))
                self.order(commands.CancelTimer(timer))

    def schedule_check(self) -> None:
        """Schedule the next inspection within the worker's interval, at a time that depends on the
        instance's id: a thousand that started together are not inspected together.

        While its agent is attached the interval is longer: the connection shows that the instance
        exists.
        """
        assert self.worker.instance is not None
        interval_s = self.worker.policy.check_instance_interval_s
        if self.worker.attached:
            interval_s *= ATTACHED_INTERVALS
        self.timer(Timer.CHECK, delay_to_next_s(self.worker.instance.id, self.at, interval_s))

    def quarantine(self, reason: str) -> None:
        """Quarantine the worker: 10 s, doubling to an hour. The doubling is reset when a build
        finishes (P7).
        """
        length_s = QUARANTINE.after_s(self.worker.backoff_s)
        self.set(
            backoff_s=length_s,
            quarantine_until=self.at + length_s,
            quarantine_reason=reason,
            last_error=reason,
        )
        self.timer(Timer.QUARANTINE, length_s)

    def leave_quarantine(self) -> None:
        self.set(quarantine_until=None, quarantine_reason=None)
        self.cancel(Timer.QUARANTINE)
        if self.worker.gate is Gate.SHUT:
            self.examine()  # somebody says that it was mended, or nobody does: look

    def examine(self) -> None:
        """Order an examination of the attached agent's machine. Nobody gets a slot before it is
        answered.
        """
        connection, expects = self.worker.connection, self.worker.policy.expects
        if connection is None or expects is None:
            self.set(gate=Gate.OPEN)
            return
        exam = self.worker.exam + 1
        self.set(gate=Gate.ASKING, exam=exam)
        self.order(commands.Examine(connection, exam, expects))

    def disconnect(self) -> None:
        self.set(connection=None, gate=Gate.OPEN)

    def report_missing(self, reason: str) -> None:
        """Mark the worker as missing and open the incident, once for as long as it lasts (V16)."""
        self._mark_missing(reason)
        self.order(commands.Notify("missing", reason))

    def start_failed(self, reason: str, *, never_attached: bool = False) -> None:
        """Count a failed start. A worker whose agent never attached is missing at once, any other
        after the second failure in a row. People are notified after the second failure in either
        case (P8), as the first may be an accident.
        """
        self.set(failed_starts=self.worker.failed_starts + 1)
        if self.worker.failed_starts >= TELLING_STARTS:
            times = self.worker.failed_starts
            self.report_missing(f"{times} starts in a row have failed, the last one: {reason}")
        elif never_attached:
            self._mark_missing(reason)

    def _mark_missing(self, reason: str) -> None:
        if self.worker.missing_since is None:
            self.set(missing_since=self.at, missing_reason=reason)

    def clear_missing(self) -> None:
        if self.worker.missing_since is not None:
            self.order(commands.Resolve("missing", "its agent is attached"))
        self.set(missing_since=None, missing_reason=None)
        self.cancel(Timer.MISSING)

    def await_agent(self) -> None:
        """Start the timer after which the worker counts as missing, because no agent is
        attached.
        """
        if self.worker.mode is Mode.ACTIVE and self.worker.missing_since is None:
            self.timer(Timer.MISSING, self.worker.policy.missing_timeout_s)

    def lose_leases(self, reason: str, *, still_running: bool = False) -> None:
        if self.worker.leases:
            self.order(commands.LoseLeases(self.worker.leases, reason, still_running))
            self.set(leases=())

    def lose_person(self, reason: str) -> None:
        """End the lease of an operator who has the worker. One who only waits for it goes on
        waiting.
        """
        person = self.worker.person
        if person is not None and person.granted:
            self.end_person(reason)

    def end_person(self, reason: str) -> None:
        assert self.worker.person is not None
        self.order(commands.TellPerson(self.worker.person, reason))
        self.set(person=None)
        self.cancel(Timer.PERSON)

    def start_idle_timer(self, at_least_s: float = 0.0) -> None:
        """No lease is left: start the idle timer, unless the owner keeps idle instances."""
        wait = self.worker.policy.build_wait_timeout_s
        if wait >= 0 and not self.worker.policy.permanent:
            self.timer(Timer.IDLE, max(wait, at_least_s))

    def send_away(self, connection: str, reason: str) -> None:
        """Send an agent away: for good, which ends it, unless a hold forbids to end anything."""
        self.order(commands.SendAway(connection, reason, self.worker.policy.hold is None))

    def destroy(self, failure: str | None = None, *, keep: bool = False) -> None:
        """Order the destroy. Until it is answered, no second one is ordered (P10).

        A repeated destroy never keeps the machine, since it is unknown how far the first one came.
        In a hold nothing is ordered: it is tried again when the hold is over (P18).
        """
        assert self.worker.instance is not None
        if self.worker.policy.hold is not None:
            self.set(destroying=False)
            self.timer(Timer.DESTROY, HOLD_AGAIN_S)
            return
        self.cancel(Timer.DESTROY)
        self.set(destroying=True)
        self.order(commands.Destroy(self.worker.instance.id, failure, keep))

    def retry_destroy(self, error: str) -> None:
        """Schedule the next try, 1 s to 5 min later, without end: the row stays and shows the error
        (P13, V3).
        """
        attempts = self.worker.destroy_attempts + 1
        self.set(destroying=False, destroy_attempts=attempts, last_error=error)
        self.timer(Timer.DESTROY, DESTROY_RETRY.delay_s(attempts))
        if self.at - self.worker.state_since >= STOP_ALARM_S:
            self.order(commands.Notify("stop_failed", error))
