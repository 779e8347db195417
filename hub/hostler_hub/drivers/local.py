"""Driver ``local``: agents as processes of this machine, found again after a hub restart.

The mark stands in the agent's arguments (``--mark HUB:INSTANCE:EPOCH``), the token in a file of
mode 0600. A process is known by pid, start time and boot: never is a bare pid signalled (E6).
An agent gets a few variables of the hub's environment and no more (V14); what a killed agent left
behind is found and killed by ``hostler-agent sweep``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

import psutil

from hostler_hub.drivers.contract import (
    Capabilities,
    DriverOptions,
    Environment,
    Inspection,
    InstanceRef,
    InstanceSpec,
    Owned,
    ProviderFailed,
)
from hostler_hub.lifecycle.model import Presence

HANDLE_VERSION = 1
GRACE_S = 5.0
TAIL_BYTES = 2000
_INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TZ", "TMPDIR")


class LocalOptions(DriverOptions):
    """Options of a local worker."""

    python: str | None = None  # the interpreter the agent runs on; default: the hub's own
    containment: Literal["auto", "cgroup2", "cgroup1", "subreaper"] = "auto"
    environment: Mapping[str, str] = {}  # variables beside PATH, HOME and their like


class LocalDriver:
    """Starts ``hostler-agent`` on the hub's own machine."""

    name: ClassVar[str] = "local"
    capabilities: ClassVar[Capabilities] = Capabilities(create_deadline_s=20.0)
    options_model: ClassVar[type[DriverOptions]] = LocalOptions

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    async def create(self, spec: InstanceSpec) -> Mapping[str, Any]:
        options = LocalOptions.model_validate(dict(spec.options))
        # Every agent was given a directory first; without one there is no process to look for,
        # and looking costs some 10 ms per 100 processes of the machine.
        if self._directory(spec.worker, spec.instance).exists():
            already = await asyncio.to_thread(self._find, spec.instance, None)
            if already:
                return _handle(already[0])
        try:
            process = await asyncio.to_thread(self._spawn, spec, options)
        except OSError as error:
            raise ProviderFailed(f"local: cannot start the agent: {error}") from error
        self._reap_when_done(process)
        return _handle(psutil.Process(process.pid))

    async def inspect(self, ref: InstanceRef) -> Inspection:
        found = await asyncio.to_thread(self._find, ref.instance, ref.handle)
        if found:
            return Inspection(Presence.RUNNING, f"process {found[0].pid}", _handle(found[0]))
        return Inspection(Presence.GONE, self._last_words(ref.worker, ref.instance))

    async def destroy(self, ref: InstanceRef) -> None:
        """SIGQUIT (kill the jobs, go), SIGKILL after 5 s, then whatever they left behind."""
        agents = await asyncio.to_thread(self._find, ref.instance, ref.handle)
        await asyncio.to_thread(_signal, agents, signal.SIGQUIT)
        alive = await asyncio.to_thread(_wait, agents, GRACE_S)
        clean = not alive
        await asyncio.to_thread(_signal, alive, signal.SIGKILL)
        left = await asyncio.to_thread(_wait, alive, GRACE_S)
        if left:
            pids = ", ".join(str(process.pid) for process in left)
            raise ProviderFailed(f"local: agent {pids} of {ref.worker} survived SIGKILL")
        if not (clean and agents):  # an agent that ends by itself takes its jobs with it
            await self._sweep(ref)
        directory = self._directory(ref.worker, ref.instance)
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)

    async def list_owned(self, places: Sequence[Mapping[str, Any]]) -> Sequence[Owned]:
        del places  # there is this machine only
        marks = await asyncio.to_thread(lambda: list(self._marked()))
        return [_owned(process, instance, epoch) for process, instance, epoch in marks]

    async def aclose(self) -> None:
        """Agents live in sessions of their own and outlive the hub."""
        self._children.clear()

    # --- starting ------------------------------------------------------------------------------

    def _directory(self, worker: str, instance: str) -> Path:
        return self._environment.directory / worker / instance

    def _mark(self, instance: str, epoch: int) -> str:
        return f"{self._environment.hub}:{instance}:{epoch}"

    def _spawn(self, spec: InstanceSpec, options: LocalOptions) -> subprocess.Popen[bytes]:
        directory = self._directory(spec.worker, spec.instance)
        workdir = directory / "work"
        workdir.mkdir(parents=True, exist_ok=True, mode=0o700)
        token_file = directory / "token"
        _write_private(token_file, spec.token)
        config = {
            **self._hub(),
            "name": spec.worker,
            "instance": spec.instance,
            "epoch": spec.epoch,
            "workdir": str(workdir),
            "token_file": str(token_file),
            "containment": options.containment,
        }
        config_file = directory / "agent.json"
        _write_private(config_file, json.dumps(config))
        argv = [options.python or sys.executable, "-m", "hostler_agent", "run"]
        argv += ["--config", str(config_file), "--mark", self._mark(spec.instance, spec.epoch)]
        with open(directory / "agent.log", "ab") as log:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=directory,
                env=_environment(options),
                start_new_session=True,
            )
        _await_mark(process)
        return process

    def _hub(self) -> dict[str, str]:
        """With TLS the hub is best reached by its socket: no certificate names loopback."""
        url, socket = self._environment.connect_url, self._environment.hub_socket
        if not url.startswith("wss:") or socket is None:
            return {"hub": url}
        return {"hub": f"ws://localhost{urlsplit(url).path}", "hub_socket": str(socket)}

    def _reap_when_done(self, process: subprocess.Popen[bytes]) -> None:
        """A zombie would look like a living agent; the pidfd tells of the end at once."""
        self._children[process.pid] = process
        loop = asyncio.get_running_loop()
        pidfd = os.pidfd_open(process.pid)

        def reap() -> None:
            process.poll()
            loop.remove_reader(pidfd)
            os.close(pidfd)
            self._children.pop(process.pid, None)

        loop.add_reader(pidfd, reap)

    async def _sweep(self, ref: InstanceRef) -> None:
        """Let the agent's own code clear what the jobs of a killed agent left, or say what."""
        options = LocalOptions.model_validate(dict(ref.options))
        argv = [sys.executable, "-m", "hostler_agent", "sweep"]
        argv += ["--name", ref.instance, "--containment", options.containment]
        sweep = await asyncio.create_subprocess_exec(
            *argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=_environment(options),
        )
        _, said = await sweep.communicate()
        if sweep.returncode != 0:
            raise ProviderFailed(f"local: sweep of {ref.worker} failed: {said.decode()[-500:]}")

    def _last_words(self, worker: str, instance: str) -> str:
        log = self._directory(worker, instance) / "agent.log"
        try:
            # No link: a build could lead it to the hub's database, whose locks SQLite loses when
            # anybody in this process opens and closes it.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            with open(os.open(log, flags), "rb") as file:
                text = file.read()[-TAIL_BYTES:].decode(errors="replace").strip()
        except OSError:
            text = ""
        return f"no such process; agent's last words: {text or 'none'}"

    # --- finding -------------------------------------------------------------------------------

    def _find(self, instance: str, handle: Mapping[str, Any] | None) -> list[psutil.Process]:
        """The living processes that carry the mark of ``instance``."""
        if handle is not None:
            process = _recall(handle)
            return [process] if process is not None else []
        return [process for process, owned, _ in self._marked() if owned == instance]

    def _marked(self) -> Iterator[tuple[psutil.Process, str, int]]:
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                arguments = process.cmdline()
                if "--mark" not in arguments or not _lives(process):
                    continue
                mark = arguments[arguments.index("--mark") + 1].split(":")
                if len(mark) == 3 and mark[0] == self._environment.hub:
                    yield process, mark[1], int(mark[2])


def _environment(options: LocalOptions) -> dict[str, str]:
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    return {**inherited, **options.environment}


def _await_mark(process: subprocess.Popen[bytes]) -> None:
    """The kernel lets the caller of exec go on some microseconds before /proc has the arguments;
    whoever looks for the mark in between would take the agent for not started."""
    while process.poll() is None and not Path(f"/proc/{process.pid}/cmdline").read_bytes():
        time.sleep(0.0002)


def _write_private(path: Path, text: str) -> None:
    """Never readable by others, not even between open and chmod."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _handle(process: psutil.Process) -> dict[str, Any]:
    return {
        "version": HANDLE_VERSION,
        "pid": process.pid,
        "started": process.create_time(),
        "boot": _boot_id(),
    }


def _owned(process: psutil.Process, instance: str, epoch: int) -> Owned:
    handle = _handle(process)
    name = f"process {process.pid}"
    return Owned(instance, epoch, handle, name=name, created_at=handle["started"])


def _recall(handle: Mapping[str, Any]) -> psutil.Process | None:
    """The process a handle means, if it is still that one (E6, nomad#23969)."""
    if handle["boot"] != _boot_id():
        return None
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(handle["pid"])
        if abs(process.create_time() - handle["started"]) < 0.02 and _lives(process):
            return process
    return None


def _lives(process: psutil.Process) -> bool:
    return bool(process.status() != psutil.STATUS_ZOMBIE)


def _signal(processes: Sequence[psutil.Process], number: signal.Signals) -> None:
    """psutil compares the start time before it signals, so a reused pid is never hit."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _wait(processes: Sequence[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    _, alive = psutil.wait_procs(processes, timeout=timeout_s)
    return [process for process in alive if process.is_running() and _lives(process)]
