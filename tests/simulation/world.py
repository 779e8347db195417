"""A whole world: a hub, a provider, machines with agents, operators, and time.

A test is a coroutine that is given a World; it orders, breaks things, lets time pass and looks.
When it returns, faults stop, everything has to come to rest within five minutes, and the
invariants are looked at once more (``observer``).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import inspect
import logging
import random
import secrets
import tempfile
import types
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import structlog
from simulation import storage as storage_module
from simulation.crashes import Traps
from simulation.loop import Process, Stuck, VirtualLoop, outside
from simulation.machine import EPOCH_S, FREE_MB, Machine, Site, Truth, disk_mb, script
from simulation.network import Network
from simulation.observer import Observer
from simulation.provider import Provider, SimulatedOptions, driver_for
from simulation.storage import Storage

from hostler_agent.machine import facts
from hostler_hub import app
from hostler_hub.drivers.contract import AgentArchive, InstanceSpec
from hostler_hub.drivers.permanent import PermanentDriver
from hostler_hub.lifecycle.model import Worker
from hostler_hub.runtime import ids
from hostler_hub.runtime.clock import SystemClock
from hostler_hub.runtime.settings import Settings
from hostler_hub.specs.build import BuildSpec
from hostler_hub.specs.states import TERMINAL_BUILD_STATES
from hostler_hub.specs.worker import WorkerDefinition
from hostler_hub.web.hub import Hub

T = TypeVar("T")

START_S = 1000.0
CONVERGENCE_S = 300.0
LOOK_S = 0.05


class HubDied(ConnectionError):
    """The hub went away before it answered: whoever asked does not know what came of it."""


class HubClock(SystemClock):
    """The hub's real clock, on a wall clock that can be set."""

    def __init__(self, world: World) -> None:
        super().__init__(world.loop)
        self._world = world

    def now(self) -> float:
        return self._world.wall()

    def monotonic(self) -> float:
        return self._world.loop.time()


@dataclass
class HubRun:
    """One process of the hub, from its start to its death or stop."""

    process: Process
    started: asyncio.Future[Hub]
    stop: asyncio.Event
    ended: asyncio.Event


class World:
    """See the module. ``jump_s`` is how far the hub's wall clock was set off."""

    def __init__(self, directory: Path, seed: int = 0, **settings: Any) -> None:
        self.random = random.Random(seed)
        self.loop = VirtualLoop()
        self.loop.now = START_S
        self.jump_s = 0.0
        self.trace: list[str] = []
        self.errors: list[str] = []
        self.truth = Truth()
        self.network = Network(self.loop, self.random)
        self.storage = Storage(lambda: self.random.uniform(0.0002, 0.002))
        self.settings = Settings(state_dir=directory / "hub", port=9, **settings)
        self.settings.state_dir.mkdir()
        storage_module.prepare(directory / "hub" / "hub.sqlite3")
        site = Site(self.network, self.truth, directory / "machines", self.random.random)
        self.site = site
        self.provider = Provider(self.loop, self._launch, lambda: self.random.uniform(0.02, 0.3))
        self.driver = driver_for(self.provider)
        self.permanents: dict[str, Machine] = {}
        self.run: HubRun | None = None
        self.hubs = 0
        self.over = False
        self.builds: list[str] = []
        self.failed: asyncio.Future[None] = self.loop.create_future()
        self.traps = Traps(self)
        self.observer = Observer(self)
        self.storage.on_commit = self._committing

    # --- time and history --------------------------------------------------------------------

    def wall(self) -> float:
        return EPOCH_S + self.loop.now + self.jump_s

    def note(self, text: str) -> None:
        if not self.over:
            self.trace.append(f"{self.loop.now - START_S:9.3f} {text}")

    def fail(self, error: Exception) -> None:
        """End the simulation with an error, whatever is under way."""
        if not self.failed.done():
            with outside():
                self.failed.set_exception(error)

    def digest(self) -> str:
        return hashlib.sha256("\n".join(self.trace).encode()).hexdigest()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def until(
        self, holds: Callable[[], Any], within_s: float = 120.0, what: str = ""
    ) -> float:
        """Wait for it; returns how long it took. Fails when it does not come true in time."""
        began = self.loop.now
        while not holds():
            if self.loop.now - began >= within_s:
                raise AssertionError(what or f"not within {within_s:g} s: {_source(holds)}")
            await self.sleep(LOOK_S)
        return self.loop.now - began

    def _committing(self, when: str, names: list[str]) -> None:
        if when == "after":
            self.observer.look()
        self.traps.committing(when, names)

    # --- the hub --------------------------------------------------------------------------------

    @property
    def hub(self) -> Hub:
        assert self.run is not None
        return self.run.started.result()

    @property
    def hub_lives(self) -> bool:
        return self.run is not None and not self.run.process.dead and self.run.started.done()

    async def start_hub(self) -> None:
        """Start a hub, also one after another; returns when it serves, or has died at it."""
        self.hubs += 1
        process = Process(self.loop, f"hub {self.hubs}")
        run = HubRun(process, self.loop.create_future(), asyncio.Event(), asyncio.Event())
        self.run = run
        process.deaths.append(lambda: self._hub_is_dead(run))
        self.note(f"hub {self.hubs} starts")
        process.spawn(self._serve(run), "hub")
        with contextlib.suppress(HubDied):
            await asyncio.shield(run.started)

    def kill_hub(self) -> None:
        """kill -9, now."""
        if self.run is not None:
            self.note(f"{self.run.process.name} is killed")
            self.run.process.kill()

    async def stop_hub(self) -> float:
        """SIGTERM; returns how long it took."""
        run = self.run
        assert run is not None
        self.note(f"{run.process.name} stops")
        began = self.loop.now
        run.stop.set()
        self.network.unlisten(run.process)
        await run.ended.wait()
        run.process.kill()
        return self.loop.now - began

    async def restart_hub(self) -> None:
        self.kill_hub()
        await self.start_hub()

    async def _serve(self, run: HubRun) -> None:
        sources = app.Sources(self.storage.open, self._drivers, _no_archive)
        try:
            async with app.running(self.settings, HubClock(self), sources) as hub:
                self.network.listen(hub, run.process)
                run.started.set_result(hub)
                await run.stop.wait()
        except Exception as error:
            self.errors.append(f"the hub ended: {error!r}")
            if not run.started.done():
                run.started.set_exception(error)
            raise
        finally:
            run.ended.set()

    def _drivers(self) -> dict[str, Any]:
        return {"simulated": self.driver, "permanent": PermanentDriver}

    def _hub_is_dead(self, run: HubRun) -> None:
        if not run.started.done():
            run.started.set_exception(HubDied("it died at its start"))
            run.started.exception()
        run.ended.set()

    async def ask(self, what: Callable[[Hub], Awaitable[T]]) -> T:
        """A request over REST, as far as the hub sees: raises HubDied when it dies over it."""
        if not self.hub_lives:
            raise HubDied("there is no hub")
        assert self.run is not None
        answer: asyncio.Future[T] = self.loop.create_future()

        def died() -> None:
            if not answer.done():
                answer.set_exception(HubDied("it died over the request"))

        def answered(task: asyncio.Task[T]) -> None:
            error = HubDied("it stopped over it") if task.cancelled() else task.exception()
            if answer.done():
                return  # nobody hears any more
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(task.result())

        self.run.process.deaths.append(died)
        task = self.run.process.spawn(_awaited(what(self.hub)), "request")
        task.add_done_callback(answered, context=_world_context())
        return await answer

    # --- what operators and users do --------------------------------------------------------

    async def define(self, *names: str, **definition: Any) -> None:
        given = {"driver": "simulated", **definition}
        workers = [WorkerDefinition.model_validate({"name": name, **given}) for name in names]
        await self.ask(lambda hub: hub.definitions.define(workers, dry_run=False, by="ann"))

    async def set_mode(self, mode: str, *names: str) -> None:
        await self.ask(
            lambda hub: hub.workers.set_mode(
                names, mode=mode, reason="simulated", by="ann", dry_run=False
            )
        )

    async def remove(self, *names: str, force: bool = True) -> None:
        await self.ask(lambda hub: hub.workers.remove(names, force=force, dry_run=False, by="ann"))

    async def substantiate(self, *names: str) -> None:
        await self.ask(lambda hub: hub.workers.substantiate(names, by="ann", dry_run=False))

    async def insubstantiate(self, *names: str) -> None:
        await self.ask(lambda hub: hub.workers.insubstantiate(names, by="ann", dry_run=False))

    async def submit(self, *argv: str, key: str | None = None, **spec: Any) -> str:
        """Submit a build of one step (``script()`` unless given); returns its id."""
        given = {"steps": [{"name": "run", "command": list(argv) or script()}], **spec}
        build = BuildSpec.model_validate(given)
        view, _ = await self.ask(
            lambda hub: hub.builds.submit(build, by="bob", idempotency_key=key)
        )
        if view.id not in self.builds:
            self.builds.append(view.id)
        return str(view.id)

    async def cancel(self, build: str) -> None:
        await self.ask(lambda hub: hub.builds.cancel(build, reason="simulated", by="bob"))

    # --- looking ------------------------------------------------------------------------------

    def life(self, name: str = "w") -> Worker:
        return self.hub.workers._registry.get(name).life  # type: ignore[attr-defined, no-any-return]

    def build(self, build: str) -> dict[str, Any]:
        """The build's row, as it is committed."""
        return self.observer.row("SELECT * FROM builds WHERE id = ?", build)

    async def ended(self, build: str, within_s: float = 300.0) -> dict[str, Any]:
        """The row of a build once it has its result."""
        await self.until(
            lambda: self.build(build)["state"] in TERMINAL_BUILD_STATES,
            within_s,
            f"build {build} has no result within {within_s:g} s: {self.build(build)}",
        )
        return self.build(build)

    async def running(self, build: str, within_s: float = 60.0) -> Machine:
        """Wait until a machine runs it; returns the machine."""
        await self.until(lambda: [r for r in self.truth.of(build) if r.ended_at is None], within_s)
        return next(run.machine for run in self.truth.of(build) if run.ended_at is None)

    async def state(self, state: str, name: str = "w", within_s: float = 120.0) -> float:
        """Wait until the worker is so; returns how long that took."""
        return await self.until(
            lambda: self.hub_lives and self.life(name).state.value == state, within_s
        )

    def machine(self, name: str = "w") -> Machine:
        """The worker's one machine at the provider."""
        (found,) = [each for each in self.provider.machines.values() if each.worker == name]
        return found

    def causes(self, name: str = "w") -> list[str]:
        """Event: cause, of the worker's history, oldest first."""
        rows = self.observer.rows("SELECT event, cause FROM events WHERE worker = ?", name)
        return [f"{row['event']}: {row['cause']}" for row in rows]

    # --- machines --------------------------------------------------------------------------------

    def _launch(self, spec: InstanceSpec, options: SimulatedOptions) -> Machine:
        machine = Machine(self.site, spec.worker, spec.instance, spec.epoch, spec.token)
        machine.free_mb = self.provider.free_mb(spec.worker)
        lacks = "" if machine.free_mb == FREE_MB else f", with {machine.free_mb} MiB of disk"
        self.note(f"machine of {spec.worker} is made, epoch {spec.epoch}{lacks}")
        with outside():
            machine.boot(spec, options)
        return machine

    def permanent(self, name: str, password: str) -> Machine:
        """A machine that its owner starts."""
        machine = Machine(self.site, name, None, None, password, exits=False)
        self.permanents[name] = machine
        machine.start_agent()
        return machine

    # --- the end ------------------------------------------------------------------------------

    def stop_faults(self) -> None:
        """From here on everybody does as he should."""
        self.provider.script.clear()
        self.provider.choose = type(self.provider).choose
        self.provider.free_mb = type(self.provider).free_mb
        self.storage.outage, self.storage.frozen = None, False
        self.traps.set.clear()
        for machine in list(self.network.partitioned):
            self.network.heal(machine)
        for process in self.loop.processes:
            if process.stopped and not process.dead:
                process.resume()

    async def converge(self, within_s: float = CONVERGENCE_S) -> None:
        """V17: with no fault any more, everything comes to rest."""
        self.stop_faults()
        if not self.hub_lives:
            await self.start_hub()
        began = self.loop.now
        unfinished = self.observer.unfinished()
        while unfinished and self.loop.now - began < within_s:
            await self.sleep(0.5)
            unfinished = self.observer.unfinished()
        assert not unfinished, f"V17: not within {within_s:g} s: {unfinished}"
        self.observer.check_all()


def _no_archive(directory: Path) -> AgentArchive:
    return AgentArchive(directory / "agent.pyz", "0" * 64)


def _world_context() -> Any:
    import contextvars

    return contextvars.Context()


async def _awaited(something: Awaitable[T]) -> T:
    return await something


def _source(holds: Callable[[], Any]) -> str:
    try:
        return inspect.getsource(holds).strip()
    except OSError:
        return repr(holds)


Scenario = Callable[[World], Coroutine[Any, Any, None]]


def _shm() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def simulate(scenario: Scenario, seed: int = 0, **settings: Any) -> World:
    """Run a scenario in a new world; the world is over then, but can be looked at."""
    # A database on a disk would have simulations wait for it.
    with tempfile.TemporaryDirectory(dir=_shm(), ignore_cleanup_errors=True) as directory:
        world = World(Path(directory), seed, **settings)
        with _determined(world):
            try:
                world.loop.run_until_complete(_live(world, scenario))
            except (AssertionError, Stuck) as error:
                error.add_note("\n".join(world.trace[-60:]))
                raise
            finally:
                world.over = True
                world.observer.close()
                world.loop.bury_all()
                world.loop.close()
        return world


async def _live(world: World, scenario: Scenario) -> None:
    life = asyncio.ensure_future(_whole(world, scenario))
    await asyncio.wait({life, world.failed}, return_when=asyncio.FIRST_COMPLETED)
    if world.failed.done():
        life.cancel()
        world.failed.result()
    await life


async def _whole(world: World, scenario: Scenario) -> None:
    await world.start_hub()
    await scenario(world)
    await world.converge()
    assert world.errors == [], list(world.errors)
    assert world.loop.failures == [], list(world.loop.failures)
    await world.stop_hub()


@contextlib.contextmanager
def _determined(world: World) -> Iterator[None]:
    """Everything that would differ from one run to the next comes from the seed."""
    chance = random.Random(world.random.getrandbits(64))
    before = structlog.get_config()
    agents = logging.getLogger("hostler_agent")
    propagates, agents.propagate = agents.propagate, False
    handler = _Handler(world)
    agents.addHandler(handler)
    time = types.SimpleNamespace(time_ns=lambda: int(world.wall() * 1e9))
    structlog.configure(processors=[_Recorder(world)], cache_logger_on_first_use=False)
    try:
        with (
            mock.patch.object(secrets, "randbits", chance.getrandbits),
            mock.patch.object(secrets, "choice", chance.choice),
            mock.patch.object(secrets, "token_bytes", lambda n=32: chance.randbytes(n)),
            mock.patch.object(ids, "_ulids", ids._Ulids()),
            mock.patch.object(ids, "time", time),
            mock.patch.object(facts, "disk_mb", disk_mb),
            world.traps.installed(),
        ):
            yield
    finally:
        structlog.configure(**before)
        agents.removeHandler(handler)
        agents.propagate = propagates


class _Recorder:
    """The hub's log goes into the history; an error in it fails the simulation."""

    def __init__(self, world: World) -> None:
        self._world = world

    def __call__(self, _logger: Any, method: str, event: Any) -> Any:
        error = event.pop("exc_info", None)
        facts = " ".join(f"{k}={v}" for k, v in event.items() if k != "event")
        text = f"hub: {event['event']} {facts}" + (f" ({error!r})" if error else "")
        self._world.note(text)
        if method in {"error", "exception", "critical"}:
            self._world.errors.append(text)
        raise structlog.DropEvent


class _Handler(logging.Handler):
    """The agents' log goes into the history."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.WARNING)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        self._world.note(f"agent: {record.getMessage()}")
