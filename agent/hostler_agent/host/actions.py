"""What a hub can have done on a machine. Each takes a request and returns a reply, JSON both.

`start`, `inspect` and `stop` hold the instance's lock, so that none sees half of what another does.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Callable, Optional

assert sys.platform != "win32"

from hostler_agent.host import processes
from hostler_agent.host.errors import (
    BUSY,
    GONE,
    NOT_PERMITTED,
    REQUEST,
    SURVIVES,
    HostError,
    of_system,
)
from hostler_agent.host.places import Place, read_json, write_private
from hostler_agent.host.processes import Identity, Mark
from hostler_agent.host.reply import text, ulid
from hostler_agent.jobs import procfs

Request = Mapping[str, Any]
Reply = dict[str, Any]

RUNNING, ENDED, STARTING = "running", "gone", "starting"

GRACE_S = 8.0
MAX_GRACE_S = 60.0
SWEEP_DEADLINE_S = 30.0
LOOK_DEADLINE_S = 2.0
TAIL_BYTES = 4000
EVIDENCE_BYTES = 60 * 1024


def install_(request: Request) -> Reply:
    """{"directory", "sha256"}: unpack the archive that this is running from."""
    from hostler_agent.host.install import install  # noqa: PLC0415 - rarely needed, and heavy

    place = Place(text(request, "directory"))
    return {"agent": str(install(Path(sys.argv[0]), text(request, "sha256"), place))}


def start(request: Request) -> Reply:
    """{"directory", "hub", "instance", "epoch", "config", "token", ...}: its process.

    `environment` are variables for it, `ca` the authorities it is to trust, as PEM.
    """
    place, mark = Place(text(request, "directory")), _mark(request)
    place.forget_old()
    with place.locked(mark.instance) as lock:
        if lock.is_gone:
            raise HostError(GONE, f"instance {mark.instance} was ended before")
        identity = _find(place, mark.hub, mark.instance)
        if identity is None:
            identity = _launch(place, mark, request)
        return _running(place, mark.instance, identity)


def inspect(request: Request) -> Reply:
    """{"directory", "hub", "instance"}: its state, its process, and its agent's last words."""
    place = Place(text(request, "directory"))
    hub, instance = ulid(request, "hub"), ulid(request, "instance")
    try:
        with place.locked(instance, LOOK_DEADLINE_S):
            identity = _find(place, hub, instance)
            if identity is not None:
                return _running(place, instance, identity)
            return {"state": ENDED, "words": _tail(place.instance(instance) / "agent.log")}
    except HostError as error:
        if error.kind != BUSY:
            raise
        return {"state": STARTING, "words": str(error)}


def stop(request: Request) -> Reply:
    """{"directory", "hub", "instance", "containment", "grace_s"}: it is gone."""
    place = Place(text(request, "directory"))
    hub, instance = ulid(request, "hub"), ulid(request, "instance")
    with place.locked(instance) as lock:
        lock.mark_gone()
        agents = processes.of_instance(hub, instance)
        _may_signal(agents)
        left, clean = processes.end(agents, _grace_s(request))
        if left:
            pids = ", ".join(str(each.pid) for each in left)
            raise HostError(SURVIVES, f"agent {pids} survives SIGKILL")
        if not (agents and clean):  # an agent that ends by itself takes its jobs with it
            _sweep(instance, text(request, "containment"))
        return {"state": ENDED, "left": place.remove(instance)}


def list_(request: Request) -> Reply:
    """{"directory", "hub"}: every instance of the hub that runs, or has left its directory."""
    place, hub = Place(text(request, "directory")), ulid(request, "hub")
    found = {mark.instance: (mark, identity) for mark, identity in processes.marked(hub)}
    listed = [
        {**_about(place, mark), "process": identity.record()} for mark, identity in found.values()
    ]
    for instance in place.known():
        if instance not in found:
            record = read_json(place.instance(instance) / "mark.json")
            if record.get("hub") == hub:
                mark = Mark(hub, instance, int(record.get("epoch", 0)))
                listed.append({**_about(place, mark), "process": None})
    return {"instances": listed}


def evidence(request: Request) -> Reply:
    """{"directory", "hub", "instance"}: texts that say what became of it."""
    place, instance = Place(text(request, "directory")), ulid(request, "instance")
    texts = {
        "agent log": _tail(place.instance(instance) / "agent.log", EVIDENCE_BYTES),
        "processes": _process_list()[:EVIDENCE_BYTES],
    }
    return {"texts": {name: content for name, content in texts.items() if content}}


ACTIONS: Mapping[str, Callable[[Request], Reply]] = {
    "install": install_,
    "start": start,
    "inspect": inspect,
    "stop": stop,
    "list": list_,
    "evidence": evidence,
}


def _launch(place: Place, mark: Mark, request: Request) -> Identity:
    token, config, extra = text(request, "token"), request.get("config"), _environment(request)
    if not isinstance(config, dict):
        raise HostError(REQUEST, "'config' must be an object")
    directory, program = place.instance(mark.instance), Path(sys.argv[0]).absolute()
    try:
        (directory / "work").mkdir(mode=0o700, parents=True, exist_ok=True)
        about = {"hub": mark.hub, "epoch": mark.epoch, "worker": config.get("name", "")}
        write_private(directory / "mark.json", json.dumps({**about, "created_at": time.time()}))
        write_private(directory / "token", token)
        complete = {**config, "workdir": "work", "token_file": "token"}
        if request.get("ca"):
            write_private(directory / "ca.pem", text(request, "ca"))
            complete["ca_file"] = "ca.pem"
        write_private(directory / "agent.json", json.dumps(complete))
        with contextlib.suppress(OSError):  # it is in use: see install
            os.utime(program)
        argv = [sys.executable, "-I", "-S", str(program), "run"]
        argv += ["--config", str(directory / "agent.json")]
        identity = processes.start(argv, directory, mark, extra)
        write_private(directory / "process.json", json.dumps(identity.record()))
    except OSError as error:
        raise of_system(error, "start the agent in") from error
    return identity


def _find(place: Place, hub: str, instance: str) -> Optional[Identity]:
    """The instance's living agent: the one on record, or whoever carries its mark."""
    directory = place.instance(instance)
    recorded = Identity.parse(read_json(directory / "process.json"))
    if recorded is not None and recorded.lives():
        return recorded
    found = processes.of_instance(hub, instance)
    return found[0] if found else None


def _running(place: Place, instance: str, identity: Identity) -> Reply:
    return {
        "state": RUNNING,
        "process": identity.record(),
        "directory": str(place.root),
        "hub_url": _hub_url(place, instance),
        "words": f"process {identity.pid} in {place.instance(instance)}",
    }


def _may_signal(agents: list[Identity]) -> None:
    for agent in agents:
        try:
            owner = Path(f"/proc/{agent.pid}").stat().st_uid
        except OSError:
            continue
        if os.geteuid() not in (0, owner):
            raise HostError(NOT_PERMITTED, f"agent {agent.pid} runs as another user (uid {owner})")


def _sweep(instance: str, containment: str) -> None:
    """Let the agent's own code, with all it imports, clear what a killed agent's jobs left."""
    argv = [sys.executable, "-I", "-S", sys.argv[0], "sweep", "--name", instance]
    argv += ["--containment", containment]
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=SWEEP_DEADLINE_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise HostError(SURVIVES, "the sweep did not end in time") from error
    except OSError as error:
        raise of_system(error, "start the sweep") from error
    if done.returncode != 0:
        raise HostError(SURVIVES, done.stderr.decode("utf-8", "replace").strip()[-500:])


def _about(place: Place, mark: Mark) -> dict[str, Any]:
    record = read_json(place.instance(mark.instance) / "mark.json")
    return {
        "instance": mark.instance,
        "epoch": mark.epoch,
        "worker": record.get("worker", ""),
        "created_at": record.get("created_at"),
        "directory": str(place.root),
        "hub_url": _hub_url(place, mark.instance),
    }


def _hub_url(place: Place, instance: str) -> Optional[str]:
    return read_json(place.instance(instance) / "agent.json").get("hub")


def _tail(path: Path, size: int = TAIL_BYTES) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - size))
            return file.read(size).decode("utf-8", "replace").strip()
    except OSError:
        return ""


def _process_list() -> str:
    found = procfs.all_processes()
    lines = (f"{each.pid} {each.parent} {each.state} {each.name}" for each in found)
    return "\n".join(("pid parent state name", *lines))


def _grace_s(request: Request) -> float:
    """How long an agent may take to end its jobs."""
    grace_s = request.get("grace_s", GRACE_S)
    if not isinstance(grace_s, (int, float)) or not 0 <= grace_s <= MAX_GRACE_S:
        raise HostError(REQUEST, f"'grace_s' must be a number from 0 to {MAX_GRACE_S:g}")
    return grace_s


def _mark(request: Request) -> Mark:
    epoch = request.get("epoch")
    if not isinstance(epoch, int) or epoch < 0:
        raise HostError(REQUEST, "'epoch' must be a number from 0 on")
    return Mark(ulid(request, "hub"), ulid(request, "instance"), epoch)


def _environment(request: Request) -> Mapping[str, str]:
    given = request.get("environment", {})
    if not isinstance(given, dict) or not all(isinstance(value, str) for value in given.values()):
        raise HostError(REQUEST, "'environment' must be an object of strings")
    return given
