"""A hub as a process of its own: started, killed and started again, and swept up after."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import ports
import psutil

from hostler_agent.jobs.posix import mounts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from e2e.api import Api

READY_S = 120.0
STOP_S = 60.0
MORTAL = Path(__file__).parent / "mortal_hub.py"


class HubDied(Exception):
    """It came to the point it was given before it was ready."""


class HubProcess:
    """The hub of one state directory. After a kill, start() takes the same state and port again.

    `log` has every line of its log, over all its lives; `logged()` waits for one.
    """

    def __init__(self, state_dir: Path, database_url: str | None = None, **settings: str) -> None:
        self.state_dir = state_dir
        self.port = ports.free()
        self.mortal = MORTAL
        self.open_files: int | None = None  # its limit of them; None: the tests' own
        self.log: list[dict[str, Any]] = []
        self._settings = settings
        if database_url is not None:
            self._settings["database_url"] = database_url
        self._lock = threading.Lock()
        self._waiting: list[tuple[dict[str, Any], concurrent.futures.Future[dict[str, Any]]]] = []
        self._instances: set[str] = set()
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def agents_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/api/v1/agents/connect"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def token(self) -> str:
        return (self.state_dir / "admin.token").read_text().strip()

    def start(self, dies_at: str | None = None) -> None:
        """Start it and wait until it serves; with `dies_at` one that kills itself at that point."""
        ready, theirs = os.pipe()
        program = ["-m", "hostler_hub"] if dies_at is None else [str(self.mortal), dies_at]
        options = ["--state-dir", str(self.state_dir), "--port", str(self.port)]
        with os.fdopen(ready, "rb") as pipe:
            try:
                self._process = subprocess.Popen(
                    [*self._wrapped(), sys.executable, *program, "serve", *options],
                    env=self._environment(theirs),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    pass_fds=(theirs,),
                )
            finally:
                os.close(theirs)
            assert self._process.stderr is not None
            self._reader = threading.Thread(
                target=self._read, args=(self._process.stderr,), name="hub-log", daemon=True
            )
            self._reader.start()
            assert select.select([pipe], [], [], READY_S)[0], "the hub is not ready in time"
            said = pipe.readline().decode().strip()
        if said != "ready":
            if dies_at is not None and self.kill() == -signal.SIGKILL and not said:
                raise HubDied
            self.kill()
            raise RuntimeError(f"the hub did not start: {said or self.log[-5:]}")
        self.port = int(self._run_file()["url"].rpartition(":")[2])

    def kill(self) -> int:
        """SIGKILL: it gets to finish nothing. Its exit code."""
        return self._end(signal.SIGKILL)

    def shoot(self) -> None:
        """SIGKILL, from any thread; who calls died() sees to the rest."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM: the end in order; its exit code."""
        return self._end(signal.SIGTERM)

    async def died(self, patience_s: float = READY_S) -> None:
        """Wait until it has been killed by the point it was given."""
        process = self._process
        assert process is not None
        async with asyncio.timeout(patience_s):
            assert await asyncio.to_thread(process.wait) == -signal.SIGKILL
        self.kill()

    async def ended(self, patience_s: float = STOP_S) -> int:
        """Wait until it has ended by itself; its exit code."""
        process = self._process
        assert process is not None
        code = await asyncio.to_thread(process.wait, patience_s)
        self.kill()
        return code

    async def logged(
        self, since: int = 0, patience_s: float = READY_S, **fields: Any
    ) -> dict[str, Any]:
        """The first line of the log, past or to come, that has all these fields."""
        found: concurrent.futures.Future[dict[str, Any]] = concurrent.futures.Future()
        with self._lock:
            for line in self.log[since:]:
                if _has(line, fields):
                    return line
            self._waiting.append((fields, found))
        async with asyncio.timeout(patience_s):
            return await asyncio.wrap_future(found)

    async def latent(self, api: Api, worker: str, patience_s: float = READY_S) -> None:
        """Wait until the worker has no instance."""
        since = len(self.log)
        if (await api.worker(worker))["state"] != "latent":
            changed = "worker changed state"
            await self.logged(since, patience_s, event=changed, worker=worker, after="latent")

    def instance_of(self, worker: str) -> Path:
        """The directory of the worker's only instance (driver local)."""
        local = self.state_dir / "instances" / "local" / "instances"
        found = [path.parent for path in local.glob("*/mark.json") if _worker(path) == worker]
        (directory,) = found
        return directory

    def agent_of(self, worker: str) -> int:
        """The pid of the worker's agent, by its mark."""
        instance = self.instance_of(worker).name
        (pid,) = (
            process.pid
            for process in psutil.process_iter(["cmdline"])
            if any(f":{instance}:" in word for word in process.info["cmdline"] or ())
        )
        return int(pid)

    def leftovers(self) -> list[str]:
        """Living processes and cgroups that belong to this hub's instances."""
        own = None if self._process is None else self._process.pid
        agents = [process for process in self._processes() if process.pid != own]
        return [*map(_named, agents), *map(str, self._cgroups())]

    def close(self) -> None:
        """Kill it and all its agents and jobs; for the end of a test, however it ended."""
        self.kill()
        for _ in range(20):
            processes = self._processes()
            for process in processes:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(processes, timeout=5)
            if not processes:
                break
        for cgroup in self._cgroups():
            for directory, _, _ in os.walk(cgroup, topdown=False):
                Path(directory).rmdir()
        if not self.leftovers():
            return
        raise RuntimeError(f"cannot kill {self.leftovers()}")

    @classmethod
    @contextlib.contextmanager
    def running(cls, state_dir: Path, **settings: str) -> Iterator[HubProcess]:
        """One that is stopped in order in the end, and leaves nothing."""
        hub = cls(state_dir, **settings)
        try:
            hub.start()
            yield hub
            hub.stop()
            assert hub.leftovers() == []
        finally:
            hub.close()

    # --- inside ---------------------------------------------------------------------------------

    def _wrapped(self) -> list[str]:
        """What the hub's command is started by."""
        limit = f'ulimit -n {self.open_files}; exec "$@"'
        return [*_dies_with_us(), *(["sh", "-c", limit, "sh"] if self.open_files else [])]

    def _environment(self, ready_fd: int) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if "HOSTLER" not in name}
        kept["HOSTLER_READY_FD"] = str(ready_fd)
        return kept | {f"HOSTLER_{name.upper()}": text for name, text in self._settings.items()}

    def _run_file(self) -> dict[str, Any]:
        read: dict[str, Any] = json.loads((self.state_dir / "hub.json").read_text())
        return read

    def _end(self, number: signal.Signals) -> int:
        process = self._process
        if process is None:
            return 0
        process.send_signal(number)
        try:
            code = process.wait(timeout=STOP_S)
        finally:
            process.kill()
            process.wait()
            self._process = None
            if self._reader is not None:
                self._reader.join()
        return code

    def _read(self, pipe: IO[bytes]) -> None:
        with pipe:
            for raw in pipe:
                text = raw.decode(errors="replace").rstrip()
                line = json.loads(text) if text.startswith("{") else {"event": text}
                if line.get("happened") == "Attached":
                    self._note_instances()
                with self._lock:
                    self.log.append(line)
                    met = [each for each in self._waiting if _has(line, each[0])]
                    self._waiting = [each for each in self._waiting if each not in met]
                for _, found in met:
                    if found.set_running_or_notify_cancel():
                        found.set_result(line)

    def _processes(self) -> list[psutil.Process]:
        """By what they were started with and where they work: the state directory is ours alone."""
        needle = str(self.state_dir)
        return [process for process in psutil.process_iter() if _mentions(process, needle)]

    def _cgroups(self) -> list[Path]:
        """Those of all instances there ever were."""
        self._note_instances()
        roots = [home / "hostler" for home in mounts.own_cgroups().values()]
        named = (root / name for root in roots for name in sorted(self._instances))
        return [path for path in named if path.exists()]

    def _note_instances(self) -> None:
        """An instance's directory goes with it."""
        local = self.state_dir / "instances" / "local"
        self._instances |= {path.name for path in local.glob("instances/*") if path.is_dir()}


def _worker(mark: Path) -> object:
    """Whose the instance is; None while it is being made or removed."""
    try:
        return json.loads(mark.read_text()).get("worker")
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def _mentions(process: psutil.Process, needle: str) -> bool:
    try:
        if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
            return False
        told = " ".join(process.cmdline()) + "\n" + "\n".join(process.environ().values())
        return needle in told or process.cwd().startswith(needle)
    except (psutil.Error, OSError):
        return False  # it ended while we looked, or works too deep for the kernel to tell where


def _named(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return f"process {process.pid}: {' '.join(process.cmdline())}"
    return f"process {process.pid}"


def _has(line: dict[str, Any], fields: dict[str, Any]) -> bool:
    return all(line.get(name) == value for name, value in fields.items())


def _dies_with_us() -> list[str]:
    """A killed test run leaves no hub behind, where util-linux can see to it."""
    return ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
