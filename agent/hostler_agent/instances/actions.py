"""What a hub can have done on a machine. Each takes a request and returns a reply, JSON both.

`start`, `inspect` and `stop` hold the instance's lock, so that none sees half of what another does.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Callable, Optional

from hostler_agent.instances.directories import Place, read_json
from hostler_agent.instances.errors import BUSY, GONE, REQUEST, HostError, of_system
from hostler_agent.instances.launch import LOG, Ending, Mark, Start
from hostler_agent.instances.reply import text, ulid
from hostler_agent.instances.system import files, processes
from hostler_agent.private_files import write_private

Request = Mapping[str, Any]
Reply = dict[str, Any]

RUNNING, ENDED, STARTING = "running", "gone", "starting"

GRACE_S = 8.0
MAX_GRACE_S = 60.0
LOOK_DEADLINE_S = 2.0
TAIL_BYTES = 4000
EVIDENCE_BYTES = 60 * 1024


def install_(request: Request) -> Reply:
    """{"directory", "sha256"}: unpack the archive that this is running from."""
    from hostler_agent.instances.install import install  # noqa: PLC0415 - rarely needed, and heavy

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
        identity = processes.find(place, mark.hub, mark.instance)
        if identity is None:
            identity = _launch(place, mark, request)
        return _running(place, mark.instance, identity)


def inspect(request: Request) -> Reply:
    """{"directory", "hub", "instance"}: its state, its process, and its agent's last words."""
    place = Place(text(request, "directory"))
    hub, instance = ulid(request, "hub"), ulid(request, "instance")
    try:
        with place.locked(instance, LOOK_DEADLINE_S):
            identity = processes.find(place, hub, instance)
            if identity is not None:
                return _running(place, instance, identity)
            return {"state": ENDED, "words": _tail(place.instance(instance) / LOG)}
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
        mark = Mark(hub, instance, 0)
        ending = Ending(text(request, "containment"), _grace_s(request))
        processes.end_instance(place, mark, ending)
        return {"state": ENDED, "left": place.remove(instance)}


def list_(request: Request) -> Reply:
    """{"directory", "hub"}: every instance of the hub that runs, or has left its directory, or what
    would start it."""
    place, hub = Place(text(request, "directory")), ulid(request, "hub")
    found = {mark.instance: (mark, identity) for mark, identity in processes.marked(place, hub)}
    listed = [
        {**_about(place, mark), "process": identity.record()} for mark, identity in found.values()
    ]
    left = {
        mark.instance: mark for mark in (*_recorded(place, hub), *processes.registered(place, hub))
    }
    for instance, mark in left.items():
        if instance not in found:
            listed.append({**_about(place, mark), "process": None})
    return {"instances": listed}


def evidence(request: Request) -> Reply:
    """{"directory", "hub", "instance"}: texts that say what became of it."""
    place, instance = Place(text(request, "directory")), ulid(request, "instance")
    log = _tail(place.instance(instance) / LOG, EVIDENCE_BYTES)
    texts = {"agent log": log, **processes.evidence()}
    return {"texts": {name: said[:EVIDENCE_BYTES] for name, said in texts.items() if said}}


ACTIONS: Mapping[str, Callable[[Request], Reply]] = {
    "install": install_,
    "start": start,
    "inspect": inspect,
    "stop": stop,
    "list": list_,
    "evidence": evidence,
}


def _launch(place: Place, mark: Mark, request: Request) -> processes.Identity:
    token, config = text(request, "token"), request.get("config")
    if not isinstance(config, dict):
        raise HostError(REQUEST, "'config' must be an object")
    wanted = Start(
        mark=mark,
        program=Path(sys.argv[0]).absolute(),
        directory=place.instance(mark.instance),
        environment=_environment(request),
        way=text(request, "way") if "way" in request else "",
    )
    directory = wanted.directory
    try:
        for each in (directory, directory / "work"):
            files.make_private(each)
        about = {"hub": mark.hub, "epoch": mark.epoch, "worker": config.get("name", "")}
        about |= {"program": str(wanted.program), "created_at": time.time()}
        write_private(directory / "mark.json", json.dumps(about))
        write_private(directory / "token", token)
        complete = {**config, "workdir": "work", "token_file": "token"}
        if request.get("ca"):
            write_private(directory / "ca.pem", text(request, "ca"))
            complete["ca_file"] = "ca.pem"
        write_private(directory / "agent.json", json.dumps(complete))
        with contextlib.suppress(OSError):  # it is in use: see install
            os.utime(wanted.program)
        return processes.start(wanted)
    except OSError as error:
        raise of_system(error, "start the agent in", directory) from error


def _running(place: Place, instance: str, identity: processes.Identity) -> Reply:
    return {
        "state": RUNNING,
        "process": identity.record(),
        "directory": str(place.root),
        "hub_url": _hub_url(place, instance),
        "words": f"process {identity.pid} in {place.instance(instance)}",
    }


def _recorded(place: Place, hub: str) -> Iterator[Mark]:
    """The hub's instances that have a directory."""
    for instance in place.known():
        record = read_json(place.instance(instance) / "mark.json")
        if record.get("hub") == hub:
            yield Mark(hub, instance, int(record.get("epoch", 0)))


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
