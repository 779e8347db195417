"""Machines: where the real agent runs, and the commands that it runs there.

The agent's daemon, link, lease, outbox and roster are the real ones; only what would start
processes is replaced, by commands that take virtual time and write what they are told to. What a
machine really ran, when, and what it wrote is kept: the truth that the hub's records are held to.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulation.loop import Process

from hostler_agent.commands import Command, RemoveDirectories
from hostler_agent.config import Config
from hostler_agent.daemon import Daemon, Surroundings, Toolbox
from hostler_agent.wire import messages
from hostler_agent.wire.extension import JOB_LOST, Receipt, Survivor
from hostler_hub.drivers.contract import InstanceSpec

if TYPE_CHECKING:
    from simulation.network import Network
    from simulation.provider import SimulatedOptions

EPOCH_S = 1_800_000_000.0
URL = "ws://127.0.0.1:9/api/v1/agents/connect"
FREE_MB = 50_000
INFO = {"system": "posix", "basedir": "/b", "numcpus": 1, "version": "simulated", "environ": {}}


def disk_mb(_workdir: Path) -> tuple[int, int]:
    """What an agent tells of the disk that it works on, in MiB: all, and what is free."""
    machine = MACHINE.get()
    machine.told_free_mb = machine.free_mb
    return 100_000, machine.free_mb


MACHINE: contextvars.ContextVar[Machine] = contextvars.ContextVar("machine")


@dataclass(eq=False)
class Run:
    """One execution of one command. ``ended_at`` is None while it runs."""

    machine: Machine
    command_id: str
    started_at: float
    ended_at: float | None = None
    output: bytes = b""
    completed: bool = False

    @property
    def build(self) -> str:
        return self.command_id.split(".")[0]

    @property
    def attempt(self) -> int:
        return int(self.command_id.split(".")[1])


@dataclass
class Truth:
    """Everything that really ran, on whatever machine."""

    runs: list[Run] = field(default_factory=list)
    began: Callable[[Run], None] = lambda _: None

    def of(self, build: str) -> list[Run]:
        return [run for run in self.runs if run.build == build]


class AgentClock:
    """The agent's: grows while its machine is suspended, as CLOCK_BOOTTIME does."""

    def __init__(self, process: Process) -> None:
        self._loop = process.loop

    def now(self) -> float:
        return self._loop.now

    def awake(self) -> float:
        return self._loop.time()

    def wall(self) -> float:
        return EPOCH_S + self._loop.now

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def call_later(self, seconds: float, call: Callable[[], None]) -> asyncio.TimerHandle:
        return self._loop.call_later(seconds, call)


@dataclass(frozen=True)
class Site:
    """What all machines of a simulation share."""

    network: Network
    truth: Truth
    directory: Path
    random: Callable[[], float]


@dataclass(eq=False)
class Machine:
    """One instance. ``faults`` are knobs of its agent; ``free_mb`` is the room on its disk, of
    which ``told_free_mb`` is what its agent has told last.
    """

    site: Site
    worker: str
    instance: str | None
    epoch: int | None
    token: str
    ended: bool = False
    free_mb: int = FREE_MB
    told_free_mb: int | None = None
    exits: bool = True  # as a container does when its main program has ended
    faults: set[str] = field(default_factory=set)
    process: Process | None = None
    daemon: Daemon | None = None
    starts: int = 0
    went_away: bool = False
    running: list[Run] = field(default_factory=list)

    @property
    def id(self) -> str:
        return self.instance or self.worker

    def handle(self) -> dict[str, Any]:
        return {"version": 1, "instance": self.instance}

    @property
    def workspaces(self) -> set[str]:
        """The builds that have a directory on it."""
        directory = self.site.directory / self.id / "builds"
        if not directory.is_dir():
            return set()
        return {path.name.partition(".")[0] for path in directory.iterdir()}

    @property
    def attached(self) -> bool:
        return bool(self.site.network.of(self.id))

    def boot(self, spec: InstanceSpec, options: SimulatedOptions) -> None:
        """The agent starts a while after the machine."""
        loop = self.site.network.loop
        if options.attaches:
            loop.call_later(options.boot_s, self.start_agent)

    def start_agent(self) -> None:
        """Start the agent, or start it again: another process of the same instance."""
        if self.ended or (self.process is not None and not self.process.dead):
            return
        self.starts += 1
        process = Process(self.site.network.loop, f"agent {self.worker}#{self.epoch}.{self.starts}")
        process.context.run(MACHINE.set, self)
        self.process = process
        process.deaths.append(self._end_runs)
        process.spawn(self._live(process), "agent")

    def kill_agent(self) -> None:
        if self.process is not None:
            self.process.kill()

    def crash(self) -> None:
        """The agent dies; where it is all that a machine is for, the machine ends with it."""
        self.kill_agent()
        self.ended = self.ended or self.exits

    def end(self, *, silently: bool = False) -> None:
        """The machine is gone; ``silently``: its connections do not even break."""
        self.ended = True
        if silently:
            for connection in self.site.network.of(self.id):
                connection.cut()
        self.kill_agent()

    async def _live(self, process: Process) -> None:
        network = self.site.network
        headers: dict[str, str] = {}
        surroundings = Surroundings(
            AgentClock(process),
            self.site.random,
            query_spot_notice=lambda: None,
            dial=lambda: network.dial(self.id, process, headers),
        )
        daemon = Daemon(self._config(), _toolbox(self.faults), surroundings)
        headers.update(daemon._link._headers)
        daemon._get_worker_info = self._told(daemon._get_worker_info)  # type: ignore[method-assign]
        daemon._handlers = {
            **daemon._handlers,
            messages.GetWorkerInfo: self._told(daemon._get_worker_info),
            messages.SetWorkerSettings: self._guarded(daemon._set_worker_settings),
        }
        self.daemon = daemon
        await daemon.run()
        self.went_away = True
        self.ended = self.ended or self.exits
        process.kill()

    def _told(self, answer: Callable[[Any], dict[str, Any]]) -> Callable[[Any], dict[str, Any]]:
        def get(message: Any) -> dict[str, Any]:
            if "info" in self.faults:
                raise RuntimeError("the info cannot be told")
            return answer(message)

        return get

    def _guarded(self, take: Callable[[Any], None]) -> Callable[[Any], None]:
        def put(message: Any) -> None:
            if "settings" in self.faults:
                raise RuntimeError("the settings cannot be taken")
            take(message)

        return put

    def _config(self) -> Config:
        workdir = self.site.directory / self.id
        return Config(URL, self.worker, self.token, workdir, self.instance, self.epoch)

    def _end_runs(self) -> None:
        for run in self.running:
            run.ended_at = self.site.network.loop.now
        self.running = []

    @contextmanager
    def run(self, command_id: str) -> Iterator[Run]:
        loop = self.site.network.loop
        run = Run(self, command_id, loop.now)
        self.running.append(run)
        self.site.truth.runs.append(run)
        self.site.truth.began(run)
        try:
            yield run
            run.completed = True
        finally:
            run.ended_at = loop.now
            if run in self.running:
                self.running.remove(run)


# --- commands ------------------------------------------------------------------------------------


def script(
    duration_s: float = 1.0,
    rc: int = 0,
    lines: int = 3,
    survivors: int = 0,
    term_s: float = 0.1,
    lost: int = 0,
) -> list[str]:
    """The argv of a build step: how long it takes, what it returns, what it leaves behind, and in
    how many attempts the agent loses it."""
    options = {"duration_s": duration_s, "rc": rc, "lines": lines, "lost": lost}
    return ["sim", json.dumps({**options, "survivors": survivors, "term_s": term_s})]


class Scripted(Command):
    """`shell`, as far as a hub sees of it."""

    name = "shell"
    _interrupted: asyncio.Event | None = None

    async def execute(self) -> None:
        todo = json.loads(self.arguments.get("command")[1])
        machine = MACHINE.get()
        self._interrupted = asyncio.Event()
        Path(self.arguments.path("workdir")).mkdir(parents=True, exist_ok=True)
        with machine.run(self.context.command_id) as run:
            ended = await self._work(run, todo)
        survivors = tuple(Survivor(n + 2, "daemon") for n in range(todo["survivors"]))
        if ended == "exited" and run.attempt <= todo["lost"]:
            ended = JOB_LOST
        rc = todo["rc"] if ended == "exited" else -1
        await self.output.pair(*Receipt(ended, rc, "simulated", survivors=survivors).pair())
        await self.output.pair("rc", rc)

    async def _work(self, run: Run, todo: dict[str, Any]) -> str:
        for line in range(todo["lines"]):
            if await self._wait(todo["duration_s"] / todo["lines"]):
                await asyncio.sleep(todo["term_s"])
                return "killed"
            data = f"{run.command_id} line {line}\n".encode()
            await self.output.write("stdout", data)
            run.output += data
        return "exited"

    async def _wait(self, seconds: float) -> bool:
        assert self._interrupted is not None
        try:
            async with asyncio.timeout(seconds):
                await self._interrupted.wait()
        except TimeoutError:
            return False
        return True

    def interrupt(self, why: str) -> None:
        if self._interrupted is not None:
            self._interrupted.set()


class Removal(RemoveDirectories):
    """`rmdir`, the real one, unless the machine cannot."""

    async def execute(self) -> None:
        if "reset" in MACHINE.get().faults:
            await self.output.pair("rc", 1)
        else:
            await super().execute()


@dataclass
class _Containment:
    name: str = "simulated"
    root_name: str = "simulated"

    def open(self, command_id: str) -> Any:
        raise NotImplementedError

    def warm_up(self) -> None:
        pass

    async def sweep(self) -> tuple[()]:
        return ()

    async def aclose(self) -> None:
        pass


def _toolbox(_faults: set[str]) -> Toolbox:
    commands = {"shell": Scripted, "rmdir": Removal}
    return Toolbox(commands, dict.fromkeys(commands, "3.3"), _Containment())
