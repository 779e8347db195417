"""The parts around the queue, put together: who waits, who decides, who explains."""

from __future__ import annotations

from dataclasses import dataclass

from hostler_hub.builds.logs import Logs
from hostler_hub.builds.service import Queue
from hostler_hub.runtime.clock import Clock
from hostler_hub.runtime.settings import Settings
from hostler_hub.runtime.tasks import Tasks
from hostler_hub.scheduling.decision_log import DecisionLog
from hostler_hub.scheduling.dispatcher import Dispatcher, Keepers
from hostler_hub.scheduling.groups import Groups
from hostler_hub.scheduling.idle_pool import IdlePool
from hostler_hub.scheduling.matching import Roster
from hostler_hub.scheduling.pool_policy import PoolPolicy
from hostler_hub.scheduling.reasons import Reasons
from hostler_hub.scheduling.skip_recorder import SkipRecorder
from hostler_hub.store.engine import Store
from hostler_hub.workers.controller import Controller
from hostler_hub.workers.registry import Registry


@dataclass(frozen=True)
class Dispatching:
    """What belongs together; ``queue.services`` is set by the composition root."""

    journal: DecisionLog
    overseer: PoolPolicy
    reasons: Reasons
    queue: Queue
    dispatcher: Dispatcher
    groups: Groups

    def changed(self) -> None:
        """Workers or groups were defined anew: something else may be possible."""
        self.overseer.changed()
        self.dispatcher.wake()

    def start(self, tasks: Tasks) -> None:
        tasks.spawn(self.journal.run(), "journal")
        self.journal.start()
        tasks.spawn(self.dispatcher.run(), "dispatcher")
        self.dispatcher.wake()


def assemble(
    settings: Settings,
    store: Store,
    clock: Clock,
    registry: Registry,
    controller: Controller,
    logs: Logs,
) -> Dispatching:
    roster = Roster(registry)
    journal = DecisionLog(store, clock, settings.decisions_keep_s, settings.decisions_keep_rows)
    overseer = PoolPolicy(clock, registry, journal)
    reasons = Reasons(registry, roster, overseer)
    queue = Queue(store, clock, logs, roster, reasons)
    keepers = Keepers(
        IdlePool(clock, registry, controller, overseer, journal),
        SkipRecorder(clock, queue, reasons, journal),
    )
    dispatcher = Dispatcher(
        clock, registry, controller, roster, overseer, queue, keepers, queue.start
    )
    overseer.need = queue.need
    controller.oversight = overseer
    queue.dispatcher = dispatcher
    groups = Groups(store, clock, overseer, dispatcher.wake)
    return Dispatching(journal, overseer, reasons, queue, dispatcher, groups)
