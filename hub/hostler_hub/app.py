"""The composition root: settings in, a hub out; torn down in the reverse order."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI
from sqlalchemy import Connection

from hostler_agent.wire import extension
from hostler_hub.builds.artifacts.exchange import Exchange
from hostler_hub.builds.artifacts.files import Files
from hostler_hub.builds.artifacts.store import Artifacts
from hostler_hub.builds.logs import Logs
from hostler_hub.builds.service import Queue
from hostler_hub.builds.step_runner import Services
from hostler_hub.dispatching import assemble
from hostler_hub.drivers import agent_archive
from hostler_hub.drivers import registry as driver_registry
from hostler_hub.drivers.contract import AgentArchive, Driver, Environment
from hostler_hub.lifecycle import commands
from hostler_hub.notify.notifier import Notifier
from hostler_hub.runtime import docker_privileges
from hostler_hub.runtime.clock import Clock, SystemClock
from hostler_hub.runtime.ids import new_ulid
from hostler_hub.runtime.private_files import write_json
from hostler_hub.runtime.secrets import ENV_PREFIX, Secrets
from hostler_hub.runtime.settings import Settings
from hostler_hub.runtime.shutdown import Closing
from hostler_hub.runtime.tasks import Tasks
from hostler_hub.scheduling.dispatcher import Dispatcher
from hostler_hub.store import meta
from hostler_hub.store.engine import Store
from hostler_hub.store.open import open_store
from hostler_hub.web import application
from hostler_hub.web.hub import Hub
from hostler_hub.web.tokens import Tokens
from hostler_hub.workers.agents.admission import Admission
from hostler_hub.workers.agents.examiner import Gate
from hostler_hub.workers.agents.refusals import Refusals
from hostler_hub.workers.agents.sessions import Agents
from hostler_hub.workers.controller import Controller
from hostler_hub.workers.definitions import Definitions
from hostler_hub.workers.evidence import Evidence
from hostler_hub.workers.incident_log import Incidents
from hostler_hub.workers.leases import Leases
from hostler_hub.workers.reconcile.reconciler import Reconciler
from hostler_hub.workers.registry import Registry
from hostler_hub.workers.service import Fleet

# What the hub's own parts may take to close, beyond the time instances have to go.
_CLOSE_S = 5.0
# For the bytes of artifacts and stored files; the disk has no use for more.
_FILE_THREADS = 4


def create_app(settings: Settings) -> FastAPI:
    """The web application; the hub lives as long as its lifespan."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with running(settings, SystemClock()) as hub:
            app.state.hub = hub
            yield

    return application.create(lifespan)


@dataclass(frozen=True)
class _Outlets:
    """Where the lifecycle's commands go that are not about a driver or a timer."""

    agents: Agents
    queue: Queue
    dispatcher: Dispatcher
    leases: Leases
    gate: Gate

    def send_away(self, connection: str, reason: str) -> None:
        self.agents.send_away(connection, reason)

    def lose_leases(self, leases: Sequence[str], reason: str, *, still_running: bool) -> None:
        self.queue.lose(leases, reason, still_running=still_running)

    def offer_slots(self) -> None:
        self.dispatcher.wake()
        self.leases.offer()

    def tell_person(self, lease: str) -> None:
        self.leases.tell(lease)

    def examine(self, worker: str, order: commands.Examine) -> None:
        self.gate.examine(worker, order)


@dataclass(frozen=True)
class Sources:
    """Where a hub has its parts from that reach outside; a simulation brings its own."""

    store: Callable[[Settings], AbstractAsyncContextManager[Store]] = open_store
    drivers: Callable[[], Mapping[str, type[Driver]]] = driver_registry.load
    archive: Callable[[Path], AgentArchive] = agent_archive.install


@contextlib.asynccontextmanager
async def running(
    settings: Settings, clock: Clock, sources: Sources | None = None
) -> AsyncIterator[Hub]:
    """A hub that has taken up what the last one left, until the context ends."""
    sources = sources or Sources()
    async with contextlib.AsyncExitStack() as stack:
        store = await stack.enter_async_context(sources.store(settings))
        hub_id = await store.write(_own_id, new_ulid(int(clock.now() * 1000)))
        tokens = Tokens(store, clock)
        await tokens.ensure_admin(settings.state_dir)
        closing = Closing(settings.shutdown_deadline_s + _CLOSE_S)
        drivers = await _drivers(stack, settings, hub_id, closing, sources)
        yield await _assemble(stack, settings, clock, store, tokens, drivers, hub_id, closing)


def _exchange(
    stack: contextlib.AsyncExitStack, settings: Settings, clock: Clock, store: Store
) -> Exchange:
    threads = ThreadPoolExecutor(_FILE_THREADS, thread_name_prefix="files")
    artifacts = Artifacts(settings.state_dir / "artifacts", store, clock, threads)
    stack.callback(artifacts.close)
    files = Files(settings.state_dir / "files", threads)
    stack.callback(files.close)
    stack.callback(threads.shutdown)
    return Exchange(artifacts, files)


async def _drivers(
    stack: contextlib.AsyncExitStack,
    settings: Settings,
    hub_id: str,
    closing: Closing,
    sources: Sources,
) -> Mapping[str, Driver]:
    agents_url = settings.connect_url + extension.PATH
    secrets = _secrets(settings)
    agent = await asyncio.to_thread(sources.archive, settings.archive_dir)
    drivers: dict[str, Driver] = {}
    for name, driver in sources.drivers().items():
        directory = settings.state_dir / "instances" / name
        environment = Environment(
            hub=hub_id,
            directory=directory,
            connect_url=agents_url,
            archive=agent,
            secrets=secrets,
            hub_socket=settings.agents_socket,
            ca_file=Path(settings.tls_ca) if settings.tls_ca else None,
            grants=docker_privileges.parse(settings.docker_allow),
            given=settings.state_dir / "drivers" / name,
        )
        drivers[name] = driver(environment)
        stack.push_async_callback(closing.within, f"driver {name}", drivers[name].aclose)
    return drivers


def _secrets(settings: Settings) -> Secrets:
    directory = (
        Path(settings.secrets_dir) if settings.secrets_dir else settings.state_dir / "secrets"
    )
    environ = {name: value for name, value in os.environ.items() if name.startswith(ENV_PREFIX)}
    return Secrets(directory, environ)


async def _assemble(
    stack: contextlib.AsyncExitStack,
    settings: Settings,
    clock: Clock,
    store: Store,
    tokens: Tokens,
    drivers: Mapping[str, Driver],
    hub_id: str,
    closing: Closing,
) -> Hub:
    exchange = _exchange(stack, settings, clock, store)
    registry = Registry()
    logs = Logs(store, settings.log_step_size_bytes)
    controller = Controller(store, clock, registry, drivers, settings.lease_ttl_s)
    secrets, refusals = _secrets(settings), Refusals(store, clock)
    notifier = Notifier(settings, store, clock, hub_id, secrets)
    controller.alarms = notifier.alarms
    admission = Admission(
        store, clock, registry, controller, refusals, secrets, settings.handshakes_per_s
    )
    agents = Agents(settings, store, clock, registry, controller, admission)
    dispatching = assemble(settings, store, clock, registry, controller, logs)
    queue, dispatcher = dispatching.queue, dispatching.dispatcher
    leases = Leases(store, clock, registry, controller)
    gate = Gate(clock, registry, controller, agents)
    controller.outlets = _Outlets(agents, queue, dispatcher, leases, gate)
    queue.services = Services(
        store, clock, controller, agents, logs, exchange, queue.finished, queue.forfeit
    )
    definitions = Definitions(
        store, clock, registry, controller, drivers, secrets, dispatching.changed
    )
    fleet = Fleet(store, clock, registry, controller, queue, definitions, dispatching.reasons)
    incidents = Incidents(store, clock, registry, notifier.defaults, notifier.outbox.wake)
    tasks = Tasks()

    ownerless = await controller.load()
    stack.callback(_note_what_is_left, settings, clock, registry, closing)
    stack.push_async_callback(closing.within, "outbox", notifier.outbox.aclose)
    stack.push_async_callback(closing.within, "controller", controller.aclose)
    await refusals.load()
    stack.push_async_callback(closing.within, "refusals", refusals.aclose)
    stack.push_async_callback(closing.within, "admission", admission.aclose)
    stack.push_async_callback(closing.within, "agents", agents.aclose)
    stack.push_async_callback(closing.within, "gate", gate.aclose)
    stack.push_async_callback(closing.within, "queue", queue.aclose)
    await dispatching.groups.load()
    await queue.load()
    queue.lose(ownerless, "its worker was lost when the last hub ended", still_running=True)
    stack.push_async_callback(closing.within, "leases", leases.aclose)
    await controller.recover()
    leases.load()
    # Drivers are still there while the idle instances are sent away (P19).
    stop = functools.partial(controller.stop, settings.shutdown_deadline_s)
    stack.push_async_callback(closing.within, "idle instances", stop)
    stack.push_async_callback(closing.within, "background tasks", tasks.aclose)
    tasks.spawn(controller.stalls.watch(), "stalls")
    dispatching.start(tasks)
    tasks.spawn(notifier.outbox.run(), "outbox")
    interval_s = settings.reconcile_interval_s
    reconciler = Reconciler(store, clock, registry, controller, drivers, interval_s)
    tasks.spawn(reconciler.run(), "reconciler")
    return Hub(
        id=hub_id,
        settings=settings,
        clock=clock,
        store=store,
        tokens=tokens,
        fleet=fleet,
        queue=queue,
        agents=agents,
        refusals=refusals,
        exchange=exchange,
        reconciler=reconciler,
        evidence=Evidence(store, clock),
        leases=leases,
        journal=dispatching.journal,
        incidents=incidents,
        groups=dispatching.groups,
    )


def _note_what_is_left(
    settings: Settings, clock: Clock, registry: Registry, closing: Closing
) -> None:
    """For whoever asked the hub to stop (V18): the instances that are still up, and why so slow."""
    instances = sorted(
        entry.life.name
        for entry in registry
        if entry.life.instance is not None and not entry.life.policy.permanent
    )
    left = {"at": clock.now(), "instances": instances, "unclosed": closing.unclosed}
    write_json(settings.stop_file, left)


def _own_id(c: Connection, fresh: str) -> str:
    """The hub's mark, made once per database."""
    known = meta.get(c, "hub")
    if known is None:
        meta.put(c, "hub", fresh)
    return known or fresh
