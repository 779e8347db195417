"""The composition root: makes a hub from its settings, and closes it in the reverse order.

Each part is complete when its constructor returns, so parts are made from the bottom up.
If two parts need each other, a third part below both is made first: the controller's
commands reach the supervisor of builds through a queue, the dispatcher and the leases
through events (``CommandReceivers``).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI
from sqlalchemy import Connection

from hostler_hub.builds.artifacts.exchange import Exchange, open_exchange
from hostler_hub.builds.logs import Logs
from hostler_hub.builds.secrets import BuildSecrets
from hostler_hub.builds.service import Builds
from hostler_hub.builds.step_runner import Services
from hostler_hub.builds.supervisor import Supervisor
from hostler_hub.drivers import agent_archive
from hostler_hub.drivers import registry as driver_registry
from hostler_hub.drivers.contract import AgentArchive, Driver
from hostler_hub.drivers.environment import environment_of
from hostler_hub.notify.notifier import Notifier
from hostler_hub.runtime.clock import Clock, SystemClock
from hostler_hub.runtime.ids import new_ulid
from hostler_hub.runtime.private_files import write_json
from hostler_hub.runtime.secrets import Secrets, secrets_of
from hostler_hub.runtime.settings import Settings
from hostler_hub.runtime.shutdown import Closing
from hostler_hub.runtime.tasks import Tasks
from hostler_hub.runtime.waiters import Waiters
from hostler_hub.scheduling.backlog import Backlog
from hostler_hub.scheduling.decision_log import DecisionLog
from hostler_hub.scheduling.dispatcher import Dispatcher
from hostler_hub.scheduling.groups import Groups
from hostler_hub.scheduling.idle_pool import IdlePool
from hostler_hub.scheduling.matching import Roster
from hostler_hub.scheduling.open_breakers import OpenBreakers
from hostler_hub.scheduling.pool_policy import PoolPolicy
from hostler_hub.scheduling.reasons import Reasons
from hostler_hub.scheduling.skip_recorder import SkipRecorder
from hostler_hub.scheduling.start_breakers import StartBreakers
from hostler_hub.store import meta
from hostler_hub.store.engine import Store
from hostler_hub.store.open import open_store
from hostler_hub.web import application
from hostler_hub.web.hub import Hub
from hostler_hub.web.tokens import Tokens
from hostler_hub.workers.agents.examiner import Examiner
from hostler_hub.workers.agents.sessions import Sessions
from hostler_hub.workers.command_handlers import CommandReceivers
from hostler_hub.workers.connections.admission import Admission
from hostler_hub.workers.connections.refusals import Refusals
from hostler_hub.workers.connections.server import AgentServer
from hostler_hub.workers.controller import Controller
from hostler_hub.workers.definitions import Definitions
from hostler_hub.workers.evidence import Evidence
from hostler_hub.workers.incident_log import Incidents
from hostler_hub.workers.lease_index import LeaseIndex
from hostler_hub.workers.leases import Leases
from hostler_hub.workers.reconcile.reconciler import Reconciler
from hostler_hub.workers.registry import Registry
from hostler_hub.workers.service import Workers

# How long the hub's own parts may take to close, beyond the deadline for stopping instances.
_CLOSE_S = 5.0


def create_app(settings: Settings) -> FastAPI:
    """The web application. Its lifespan starts the hub and closes it."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with running(settings, SystemClock()) as hub:
            app.state.hub = hub
            yield

    return application.create(lifespan)


@dataclass(frozen=True)
class Sources:
    """The makers of a hub's parts that reach outside the process: the store, the drivers and the
    agent's archive. A simulation brings its own.
    """

    store: Callable[[Settings], AbstractAsyncContextManager[Store]] = open_store
    drivers: Callable[[], Mapping[str, type[Driver]]] = driver_registry.load
    archive: Callable[[Path], AgentArchive] = agent_archive.install


@contextlib.asynccontextmanager
async def running(
    settings: Settings, clock: Clock, sources: Sources | None = None
) -> AsyncIterator[Hub]:
    """A running hub that has resumed what the previous one left. It is closed when
    the context ends.
    """
    sources = sources or Sources()
    async with contextlib.AsyncExitStack() as stack:
        store = await stack.enter_async_context(sources.store(settings))
        hub_id = await store.write(_own_id, new_ulid(int(clock.now() * 1000)))
        tokens = Tokens(store, clock)
        await tokens.ensure_admin(settings.state_dir)
        closing = Closing(settings.shutdown_deadline_s + _CLOSE_S)
        secrets = secrets_of(settings)
        archive = await asyncio.to_thread(sources.archive, settings.archive_dir)
        drivers: dict[str, Driver] = {}
        for name, driver in sources.drivers().items():
            drivers[name] = driver(environment_of(name, settings, hub_id, archive, secrets))
            stack.push_async_callback(closing.within, f"driver {name}", drivers[name].aclose)
        exchange = stack.enter_context(open_exchange(settings.state_dir, store, clock))
        base = _Base(hub_id, settings, clock, store, tokens, secrets, drivers, exchange)
        yield await _start(stack, _parts(base, _core(base)), closing)


@dataclass(frozen=True)
class _Base:
    """The parts on which all other parts of the hub depend."""

    id: str
    settings: Settings
    clock: Clock
    store: Store
    tokens: Tokens
    secrets: Secrets
    drivers: Mapping[str, Driver]
    exchange: Exchange


@dataclass(frozen=True)
class _Core:
    """The controller, the receivers of its commands, and what its transitions depend on."""

    registry: Registry
    roster: Roster
    receivers: CommandReceivers
    wake_dispatcher: asyncio.Event
    lease_offered: asyncio.Event
    backlog: Backlog
    decision_log: DecisionLog
    breakers: StartBreakers
    policy: PoolPolicy
    notifier: Notifier
    controller: Controller


def _core(base: _Base) -> _Core:
    settings, store, clock = base.settings, base.store, base.clock
    registry = Registry()
    roster = Roster(registry)
    sessions = Sessions(store, registry)
    wake_dispatcher, lease_offered = asyncio.Event(), asyncio.Event()
    receivers = CommandReceivers(
        sessions=sessions,
        examiner=Examiner(clock, registry, sessions),
        leases=LeaseIndex(),
        lost_leases=asyncio.Queue(),
        offers=(wake_dispatcher, lease_offered),
    )
    backlog = Backlog(roster, wake_dispatcher)
    log = DecisionLog(store, clock, settings.decisions_keep_s, settings.decisions_keep_rows)
    breakers = StartBreakers(registry, base.drivers)
    policy = PoolPolicy(clock, registry, backlog, log, breakers)
    notifier = Notifier(settings, store, clock, base.id, base.secrets)
    controller = Controller(
        store,
        clock,
        registry,
        base.drivers,
        settings.lease_ttl_s,
        policy,
        notifier.alarms,
        receivers,
    )
    signals = wake_dispatcher, lease_offered
    return _Core(
        registry,
        roster,
        receivers,
        *signals,
        backlog,
        log,
        breakers,
        policy,
        notifier,
        controller,
    )


@dataclass(frozen=True)
class _Parts:
    """The services, and the loops that run in the background."""

    hub: Hub
    core: _Core
    admission: Admission
    supervisor: Supervisor
    dispatcher: Dispatcher


def _parts(base: _Base, core: _Core) -> _Parts:
    settings, store, clock = base.settings, base.store, base.clock
    registry, controller, policy = core.registry, core.controller, core.policy
    sessions, log = core.receivers.sessions, core.decision_log

    def defined() -> None:
        """Recount the pools and wake the dispatcher: newly defined workers may fit builds."""
        policy.changed()
        core.wake_dispatcher.set()

    refusals = Refusals(store, clock)
    admission = Admission(
        store, clock, registry, controller, refusals, base.secrets, settings.handshakes_per_s
    )
    agents = AgentServer(settings, store, clock, registry, controller, admission, sessions)
    reasons = Reasons(registry, core.roster, policy)
    logs = Logs(store, settings.log_step_size_bytes)
    services = Services(
        store,
        clock,
        controller,
        sessions,
        logs,
        base.exchange,
        Waiters(),
        BuildSecrets(settings.build_secrets_path),
    )
    supervisor = Supervisor(services, core.backlog, core.receivers.lost_leases)
    dispatcher = Dispatcher(
        clock,
        registry,
        controller,
        core.roster,
        policy,
        core.backlog,
        wake=core.wake_dispatcher,
        idle_pool=IdlePool(clock, registry, controller, policy, log),
        skips=SkipRecorder(clock, core.backlog, reasons, log),
        on_leased=supervisor.start,
    )
    definitions = Definitions(
        store, clock, registry, controller, base.drivers, base.secrets, defined
    )
    hub = Hub(
        id=base.id,
        settings=settings,
        clock=clock,
        store=store,
        tokens=base.tokens,
        workers=Workers(store, clock, registry, controller, supervisor, reasons),
        builds=Builds(services, core.backlog, reasons, supervisor),
        definitions=definitions,
        supervisor=supervisor,
        agents=agents,
        refusals=refusals,
        exchange=base.exchange,
        reconciler=Reconciler(
            store, clock, registry, controller, base.drivers, settings.reconcile_interval_s
        ),
        evidence=Evidence(store, clock),
        leases=Leases(
            store, clock, registry, controller, core.receivers.leases, core.lease_offered
        ),
        decisions=log,
        incidents=Incidents(
            store, clock, registry, core.notifier.defaults, core.notifier.outbox.wake
        ),
        groups=Groups(store, clock, policy, core.breakers, core.wake_dispatcher.set),
        breakers=OpenBreakers(clock, core.breakers, core.decision_log, core.wake_dispatcher.set),
    )
    return _Parts(hub, core, admission, supervisor, dispatcher)


async def _start(stack: contextlib.AsyncExitStack, parts: _Parts, closing: Closing) -> Hub:
    """Load what the previous hub left, and start the background loops. ``stack`` closes all parts
    in the reverse order.
    """
    hub, core, tasks = parts.hub, parts.core, Tasks()
    controller, outbox = core.controller, core.notifier.outbox

    def closes(name: str, close: Callable[[], Awaitable[object]]) -> None:
        stack.push_async_callback(closing.within, name, close)

    await controller.load()
    stack.callback(_note_what_is_left, hub.settings, hub.clock, core.registry, closing)
    closes("outbox", outbox.aclose)
    closes("controller", controller.aclose)
    await hub.refusals.load()
    closes("refusals", hub.refusals.aclose)
    closes("admission", parts.admission.aclose)
    closes("agents", core.receivers.sessions.aclose)
    closes("queue", parts.supervisor.aclose)
    await hub.groups.load()
    await core.backlog.load(hub.store)
    await parts.supervisor.load()
    closes("leases", hub.leases.aclose)
    await controller.recover()
    hub.leases.load()
    # Drivers are still there while the idle instances are sent away (P19).
    stop = functools.partial(controller.stop, hub.settings.shutdown_deadline_s)
    closes("idle instances", stop)
    closes("background tasks", tasks.aclose)
    tasks.spawn(controller.stalls.watch(), "stalls")
    tasks.spawn(core.decision_log.run(), "decision log")
    tasks.spawn(parts.dispatcher.run(), "dispatcher")
    tasks.spawn(hub.leases.run(), "leases")
    tasks.spawn(outbox.run(), "outbox")
    tasks.spawn(hub.reconciler.run(), "reconciler")
    return hub


def _note_what_is_left(
    settings: Settings, clock: Clock, registry: Registry, closing: Closing
) -> None:
    """Write for whoever stopped the hub (V18) which instances are still up, and which parts did not
    close in time.
    """
    instances = sorted(
        entry.life.name
        for entry in registry
        if entry.life.instance is not None and not entry.life.policy.permanent
    )
    left = {"at": clock.now(), "instances": instances, "unclosed": closing.unclosed}
    write_json(settings.stop_file, left)


def _own_id(c: Connection, fresh: str) -> str:
    """The hub's id, with which it marks its instances. It is made once per database."""
    known = meta.get(c, "hub")
    if known is None:
        meta.put(c, "hub", fresh)
    return known or fresh
