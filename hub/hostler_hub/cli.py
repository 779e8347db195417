"""`hostler-hub`: serve, start, stop, status, backup, restore, certificate, token.

A mistake of the operator is reported as one line on stderr and exit status 2. Only serve imports
the web framework, so that the other commands answer at once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hostler_hub import __version__
from hostler_hub.errors import HubError, SettingsError, StateLost
from hostler_hub.runtime import private_files, process
from hostler_hub.runtime.errors import HubRuns, HubUnresponsive
from hostler_hub.runtime.settings import Settings
from hostler_hub.runtime.sizes import show_size

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Command = Callable[[Settings, argparse.Namespace], int]

_ROLES = ("viewer", "submitter", "operator", "admin")
# Connections and the hub's own parts get some seconds beyond the instances' deadline.
_MARGIN_S = 15.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    0: it succeeded. 1: no hub answers. 2: the arguments or the configuration are wrong. 3: the
    hub's state was lost while it served.
    """
    arguments = _parser().parse_args(argv)
    try:
        settings = Settings.from_environment(
            os.environ,
            state_dir=arguments.state_dir,
            host=arguments.host,
            port=arguments.port,
            database_url=arguments.database_url,
        )
        command: Command = arguments.command
        return command(settings, arguments)
    except (SettingsError, HubError) as error:
        return _fail(str(error), 2)
    except StateLost as error:
        return _fail(str(error), 3)
    except HubUnresponsive as error:
        return _fail(str(error), 1)


def _serve(settings: Settings, _arguments: argparse.Namespace) -> int:
    from hostler_hub.runtime import garbage_collection  # noqa: PLC0415

    garbage_collection.rest()
    from hostler_hub import server  # noqa: PLC0415  # a second of imports that only this needs

    server.serve(settings)
    return 0


def _start(settings: Settings, _arguments: argparse.Namespace) -> int:
    try:
        running = process.start(settings)
    except HubRuns:
        print(f"runs already: {process.await_health(settings).url}")
        return 0
    print(running.url)
    return 0


def _stop(settings: Settings, arguments: argparse.Namespace) -> int:
    timeout_s = arguments.timeout
    if timeout_s is None:
        timeout_s = settings.shutdown_deadline_s + _MARGIN_S
    if not process.stop(settings, timeout_s):
        print("no hub runs")
        return 0
    left = private_files.read_json(settings.stop_file)
    print("stopped")
    if left.get("instances"):
        print(f"still up until a hub runs again: {', '.join(left['instances'])}")
    if left.get("unclosed"):
        print(f"did not close in time: {', '.join(left['unclosed'])}")
    return 0


def _status(settings: Settings, arguments: argparse.Namespace) -> int:
    running = process.find_running(settings)
    state: dict[str, Any] = {"running": running is not None, "state_dir": str(settings.state_dir)}
    if running is not None:
        state.update(pid=running.pid, url=running.url, started_at=running.started_at)
        health = process.call(running, "/healthz") if running.url else None
        state["healthy"] = health is not None
        if running.url and health is not None:
            state["not_ready"] = process.why_not_ready(running)
        if state["healthy"] and state["not_ready"] is None:
            token = _admin_token(settings)
            state.update(process.call(running, "/api/v1/status", token=token) or {})
    if arguments.json:
        print(json.dumps(state))
    else:
        print(_status_line(state))
    return 0 if state.get("healthy") else 1


def _certificate(settings: Settings, arguments: argparse.Namespace) -> int:
    from hostler_hub.runtime import certificate_authority  # noqa: PLC0415

    settings.prepare_state_dir()
    directory = settings.state_dir / "tls"
    certificate_authority.make(directory, arguments.names)
    print(f"HOSTLER_TLS_CERTIFICATE={directory / 'hub.pem'}")
    print(f"HOSTLER_TLS_KEY={directory / 'hub.key'}")
    print(f"HOSTLER_TLS_CA={directory / 'ca.pem'}")
    return 0


def _backup(settings: Settings, arguments: argparse.Namespace) -> int:
    from hostler_hub.store import backups  # noqa: PLC0415  # the store's imports

    manifest = backups.back_up(settings, arguments.file)
    print(f"{arguments.file}: hub {manifest.hub}, {len(manifest.members)} files")
    for name in manifest.missing:
        print(f"not on the hub's disk any more: {name}", file=sys.stderr)
    return 0


def _restore(settings: Settings, arguments: argparse.Namespace) -> int:
    from hostler_hub.store import restores  # noqa: PLC0415  # the store's imports

    manifest = restores.restore(settings, arguments.file)
    print(f"{settings.state_dir}: hub {manifest.hub}, {len(manifest.members)} files")
    print("The hub will start in hold: it ends nothing before reconcile is given confirmed: true")
    return 0


def _token_create(settings: Settings, arguments: argparse.Namespace) -> int:
    body = {"name": arguments.name, "role": arguments.role}
    if arguments.expires_in is not None:
        body["expires_in_s"] = arguments.expires_in
    running = process.find_running(settings)
    if running is None:
        print(asyncio.run(_create_offline(settings, body)))
        return 0
    running = process.await_health(settings)
    token = _admin_token(settings)
    made = process.call(running, "/api/v1/tokens", token=token, method="POST", body=body)
    if made is None:
        raise HubUnresponsive(f"the hub at {running.url} does not answer")
    print(made["token"])
    return 0


async def _create_offline(settings: Settings, body: dict[str, Any]) -> str:
    """Create the token without a running hub, holding the hub's lock. Returns the token."""
    from hostler_hub.runtime.clock import SystemClock  # noqa: PLC0415
    from hostler_hub.specs.caller import Role  # noqa: PLC0415  # the store's imports
    from hostler_hub.store.open import open_store  # noqa: PLC0415
    from hostler_hub.web.tokens import MAX_LIFE_S, Tokens  # noqa: PLC0415  # the store's imports

    settings.prepare_state_dir()
    with process.hold_lock(settings):
        async with open_store(settings) as store:
            life_s = body.get("expires_in_s", MAX_LIFE_S)
            tokens = Tokens(store, SystemClock())
            return await tokens.create(
                body["name"], Role(body["role"]), by="command line", expires_in_s=life_s
            )


def _admin_token(settings: Settings) -> str:
    try:
        return settings.admin_token_file.read_text().strip()
    except OSError as error:
        raise SettingsError(
            f"{settings.admin_token_file} cannot be read: {error.strerror}"
        ) from error


def _status_line(state: dict[str, Any]) -> str:
    if not state["running"]:
        return f"no hub runs on {state['state_dir']}"
    if not state["healthy"]:
        return f"a hub (pid {state['pid']}) runs on {state['state_dir']} but does not answer"
    if state["not_ready"] is not None:
        return f"{state['url']} (pid {state['pid']}) accepts nothing now: {state['not_ready']}"
    hold = f"\nhold: {state['hold']}" if state.get("hold") else ""
    workers, builds = state.get("workers", {}), state.get("builds", {})
    return (
        f"{state['url']} (pid {state['pid']}, since {state['started_at']}):"
        f" {workers.get('total', 0)} workers, {workers.get('attached', 0)} attached;"
        f" {builds.get('queued', 0)} builds queued, {builds.get('running', 0)} running{hold}"
        f"{_storage_line(state.get('storage'))}"
    )


def _storage_line(storage: dict[str, Any] | None) -> str:
    if storage is None:
        return ""
    stored = sum(storage[kind]["used_bytes"] for kind in ("files", "artifacts", "logs"))
    free = show_size(storage["disk_free_bytes"])
    return f"; {show_size(stored)} of files, artifacts and logs, {free} of the disk free"


def _fail(message: str, status: int) -> int:
    process.announce(message)
    print(f"hostler-hub: {message}", file=sys.stderr)
    return status


def _parser() -> argparse.ArgumentParser:
    # No fromfile_prefix_chars: an "@" in an argument never reads a file.
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--state-dir", type=Path, help="where the hub keeps everything")
    common.add_argument("--host", help="address to listen on (127.0.0.1)")
    common.add_argument("--port", type=int, help="port to listen on (8010); 0: any free one")
    common.add_argument("--database-url", help="sqlite:////path or postgresql://user@host/database")
    parser = argparse.ArgumentParser(
        prog="hostler-hub", description="The controller of a fleet of build workers."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Command, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, parents=[common], help=text, description=text)
        added.set_defaults(command=command)
        return added

    add("serve", _serve, "Run a hub in the foreground.")
    add("start", _start, "Start a hub in the background and wait until it answers.")
    stop = add("stop", _stop, "Stop the hub and say what is left; 1 if it is still there.")
    stop.add_argument("--timeout", type=float, metavar="SECONDS", help="how long to wait")
    status = add("status", _status, "Tell whether a hub runs and how it is; 1 if none answers.")
    status.add_argument("--json", action="store_true", help="as one JSON object")
    text = "Write a backup of database and state directory to a new file, also while the hub runs."
    add("backup", _backup, text).add_argument("file", type=Path, metavar="FILE")
    text = "Restore a backup into an empty state directory; the hub then starts in hold."
    add("restore", _restore, text).add_argument("file", type=Path, metavar="FILE")
    text = "Make a certificate for the hub, signed by an authority of its own."
    certificate = add("certificate", _certificate, text)
    certificate.add_argument(
        "names", nargs="+", metavar="NAME", help="host name or address that clients use"
    )
    tokens = commands.add_parser("token", help="Make API tokens.").add_subparsers(
        required=True, metavar="COMMAND"
    )
    create = tokens.add_parser("create", parents=[common], help="Make a token and print it.")
    create.set_defaults(command=_token_create)
    create.add_argument("name", metavar="NAME")
    create.add_argument("--role", required=True, choices=_ROLES)
    create.add_argument("--expires-in", type=float, metavar="SECONDS", help="90 days if not given")
    return parser
