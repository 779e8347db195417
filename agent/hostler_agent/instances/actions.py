"""The actions that a hub requests of a machine. Each takes a request and returns a reply, which
are JSON objects.

`start`, `inspect` and `stop` hold the instance's lock, so that none sees another half done.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any, Callable, Optional

from hostler_agent.instances.directories import Directories, read_json, tail
from hostler_agent.instances.errors import BUSY, GONE, REQUEST, SYSTEM, HostError, of_system
from hostler_agent.instances.launch import LOG, Ending, Program, Start
from hostler_agent.instances.mark import Mark
from hostler_agent.instances.reply import text, ulid
from hostler_agent.instances.system import files, processes
from hostler_agent.private_files import write_private

Request = Mapping[str, Any]
Reply = dict[str, Any]

WORKDIR = "work"
"""The agent's own directory within that of its instance."""

RUNNING, ENDED, STARTING = "running", "gone", "starting"

GRACE_S = 8.0
MAX_GRACE_S = 60.0
LOOK_DEADLINE_S = 2.0
EVIDENCE_BYTES = 60 * 1024


def install_(request: Request, program: Program) -> Reply:
    """Unpack the archive that this program runs from. Request: {"directory", "sha256"}."""
    from hostler_agent.instances.install import install  # noqa: PLC0415 - rarely needed, and heavy

    directories = Directories(text(request, "directory"))
    return {"agent": str(install(program.path, text(request, "sha256"), directories))}


def start(request: Request, program: Program) -> Reply:
    """Start an agent, or find the running one. Request: {"directory", "hub", "instance", "epoch",
    "config", "token", ...}.

    Of the optional keys, `environment` are variables for the agent, `ca` the authorities that it
    trusts (PEM), and `way` one of the platform's ways to start it.
    """
    directories, mark = Directories(text(request, "directory")), _mark(request)
    directories.forget_old()
    with directories.locked(mark.instance) as lock:
        if lock.is_gone:
            raise HostError(GONE, f"instance {mark.instance} was ended before")
        # A directory is made before the first process: without one there is none to look for, and
        # looking takes long on a machine with many processes.
        is_new = not directories.instance(mark.instance).exists()
        identity = None if is_new else processes.find(directories, mark.hub, mark.instance)
        if identity is None:
            identity = _launch(directories, mark, request, program)
        return _running(directories, mark.instance, identity)


def inspect(request: Request, _program: Program) -> Reply:
    """Return the instance's state, process, and last lines of log. Request: {"directory", "hub",
    "instance"}.
    """
    directories = Directories(text(request, "directory"))
    hub, instance = ulid(request, "hub"), ulid(request, "instance")
    try:
        with directories.locked(instance, LOOK_DEADLINE_S):
            identity = processes.find(directories, hub, instance)
            if identity is not None:
                return _running(directories, instance, identity)
            return {"state": ENDED, "words": tail(directories.instance(instance) / LOG)}
    except HostError as error:
        if error.kind != BUSY:
            raise
        return {"state": STARTING, "words": str(error)}


def stop(request: Request, program: Program) -> Reply:
    """End the instance; return when none of its processes is left. Request: {"directory", "hub",
    "instance", "containment", "grace_s"}.
    """
    from hostler_agent.commands import secret_files  # noqa: PLC0415 - rarely needed, and heavy

    directories = Directories(text(request, "directory"))
    hub, instance = ulid(request, "hub"), ulid(request, "instance")
    with directories.locked(instance) as lock:
        lock.mark_gone()
        mark = Mark(hub, instance, 0)
        ending = Ending(program, text(request, "containment"), _grace_s(request))
        processes.end_instance(directories, mark, ending)
        secret_files.sweep(directories.instance(instance) / WORKDIR)
        return {"state": ENDED, "left": directories.remove(instance)}


def list_(request: Request, _program: Program) -> Reply:
    """List the hub's instances that run, that left their directory behind, or that something (a
    service) would start. Request: {"directory", "hub"}.
    """
    directories, hub = Directories(text(request, "directory")), ulid(request, "hub")
    running = dict(processes.marked(directories, hub))
    listed = [
        {**_about(directories, mark), "process": identity.record()}
        for mark, identity in running.items()
    ]
    known = {mark.instance for mark in running}
    for mark in (*_recorded(directories, hub), *processes.registered(directories, hub)):
        if mark.instance not in known:
            known.add(mark.instance)
            listed.append({**_about(directories, mark), "process": None})
    return {"instances": listed}


def evidence(request: Request, _program: Program) -> Reply:
    """Return texts that show people what happened to the instance. Request: {"directory", "hub",
    "instance"}.
    """
    directories, instance = Directories(text(request, "directory")), ulid(request, "instance")
    log = tail(directories.instance(instance) / LOG, EVIDENCE_BYTES)
    texts = {"agent log": log, **processes.evidence()}
    return {"texts": {name: said[:EVIDENCE_BYTES] for name, said in texts.items() if said}}


ACTIONS: Mapping[str, Callable[[Request, Program], Reply]] = {
    "install": install_,
    "start": start,
    "inspect": inspect,
    "stop": stop,
    "list": list_,
    "evidence": evidence,
}


def perform(action: str, request: Request, program: Program) -> Reply:
    """Carry out an action on this machine and return the reply. Raises nothing: an error is in the
    reply as {"error": {"kind", "text"}}, where `kind` is one of `errors.KINDS`.
    """
    if action not in ACTIONS:
        known = ", ".join(ACTIONS)
        return refusal(HostError(REQUEST, f"there is no action {action!r}: {known}"))
    try:
        return ACTIONS[action](request, program)
    except HostError as error:
        return refusal(error)
    except Exception as error:  # noqa: BLE001 - the outermost boundary: a hub waits for an answer
        return refusal(HostError(SYSTEM, f"{type(error).__name__}: {error}"))


def refusal(error: HostError) -> Reply:
    """The reply that carries an error."""
    return {"error": {"kind": error.kind, "text": str(error)}}


def _launch(
    directories: Directories, mark: Mark, request: Request, program: Program
) -> processes.Identity:
    token, config = text(request, "token"), request.get("config")
    if not isinstance(config, dict):
        raise HostError(REQUEST, "'config' must be an object")
    wanted = Start(
        mark=mark,
        program=program,
        directory=directories.instance(mark.instance),
        environment=_environment(request),
        way=text(request, "way") if "way" in request else "",
    )
    directory = wanted.directory
    try:
        for each in (directory, directory / WORKDIR):
            files.make_private(each)
        about = {"hub": mark.hub, "epoch": mark.epoch, "worker": config.get("name", "")}
        about |= {"program": str(program.path), "created_at": time.time()}
        write_private(directory / "mark.json", json.dumps(about), sync=False)
        write_private(directory / "token", token, sync=False)
        complete = {**config, "workdir": WORKDIR, "token_file": "token"}
        if request.get("ca"):
            write_private(directory / "ca.pem", text(request, "ca"), sync=False)
            complete["ca_file"] = "ca.pem"
        write_private(directory / "agent.json", json.dumps(complete), sync=False)
        if program.path.parent == directories.agents:
            with contextlib.suppress(OSError):  # its age says that it is in use: see install
                os.utime(program.path)
        return processes.start(wanted)
    except OSError as error:
        raise of_system(error, "start the agent in", directory) from error


def _running(directories: Directories, instance: str, identity: processes.Identity) -> Reply:
    return {
        "state": RUNNING,
        "process": identity.record(),
        "directory": str(directories.root),
        "hub_url": _hub_url(directories, instance),
        "words": f"process {identity.pid} in {directories.instance(instance)}",
    }


def _recorded(directories: Directories, hub: str) -> Iterator[Mark]:
    """The marks of the hub's instances that have a directory."""
    for instance in directories.known():
        record = read_json(directories.instance(instance) / "mark.json")
        if record.get("hub") == hub:
            yield Mark(hub, instance, int(record.get("epoch", 0)))


def _about(directories: Directories, mark: Mark) -> dict[str, Any]:
    record = read_json(directories.instance(mark.instance) / "mark.json")
    return {
        "instance": mark.instance,
        "epoch": mark.epoch,
        "worker": record.get("worker", ""),
        "created_at": record.get("created_at"),
        "directory": str(directories.root),
        "hub_url": _hub_url(directories, mark.instance),
    }


def _hub_url(directories: Directories, instance: str) -> Optional[str]:
    return read_json(directories.instance(instance) / "agent.json").get("hub")


def _grace_s(request: Request) -> float:
    """How long an agent may take to end its jobs, in seconds, from the request. Raises
    HostError.
    """
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
