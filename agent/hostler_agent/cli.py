"""`hostler-agent run`: read the configuration, start the daemon, handle the signals.
`hostler-agent sweep`: kill what the jobs of a dead agent left behind.
`hostler-agent host`: carry out an action on this machine for the driver of a remote hub.
`hostler-agent service`: install, remove or run the agent as a Windows service.

Exit codes: 0 told to stop or to go away, orphaned, or swept clean; 2 a configuration that cannot
work (one line on standard error); 1 an unexpected error, or a process that survived the sweep.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Optional

from hostler_agent import __version__
from hostler_agent.config import from_options, load
from hostler_agent.errors import ConfigurationError
from hostler_agent.run import (
    EXIT_STOPPED,
    EXIT_UNEXPECTED,
    containment_of,
    guarded,
    log,
    run,
)

if TYPE_CHECKING:
    from hostler_agent.config import Config
    from hostler_agent.jobs.receipt import ProcessName

_SWEEPS = 10


_OPTIONS = (
    *("hub", "name", "token_file", "workdir", "ca_file", "containment", "insecure"),
    *("run_as", "build_groups", "build_uids", "no_new_privileges"),
)


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Entry point of the program. Returns its exit code."""
    options = _parser().parse_args(arguments)
    return guarded(lambda: _ACTIONS[options.command](options), verbose=options.verbose)


def sweep(options: argparse.Namespace) -> int:
    """Kill the remaining processes of a dead agent's jobs. Raises ConfigurationError."""
    containment = containment_of(options.containment or "auto", options.name)

    async def clear() -> tuple[ProcessName, ...]:
        try:
            for _ in range(_SWEEPS):  # a process may fork while the others die
                found = await containment.sweep()
                for process in found:
                    log.info("killed %s (%s)", process.pid, process.name)
                if not found:
                    break
            return found
        finally:
            await containment.aclose()

    left = asyncio.run(clear())
    for process in left:
        print(f"hostler-agent: {process.pid} ({process.name}) survives", file=sys.stderr)
    return EXIT_UNEXPECTED if left else EXIT_STOPPED


def service(options: argparse.Namespace) -> int:
    """Prepare, install, remove or run the Windows service. All but the last print one word that
    says what was done: prepared, installed, changed, removed or unchanged. Raises
    ConfigurationError.
    """
    if sys.platform != "win32":
        raise ConfigurationError("services of this kind are Windows'; here, systemd has them")
    else:  # noqa: RET506 - type checkers know platforms by branches
        from hostler_agent.service import service as services  # noqa: PLC0415

        if options.action == "prepare":
            print(services.prepare(options.directories, is_trial=options.check))
            return EXIT_STOPPED
        if options.action == "remove":
            print(services.remove(options.name, is_trial=options.check))
            return EXIT_STOPPED
        if options.config is None:
            raise ConfigurationError(f"--config is missing: {options.action} needs it")
        config_file = options.config.absolute()
        config = load(config_file)
        if options.action == "run":
            services.run(options.name, config)
        else:
            wanted = services.Installation(options.name, config_file, config, options.account)
            print(services.install(wanted, is_trial=options.check))
        return EXIT_STOPPED


def host(options: argparse.Namespace) -> int:
    """Start, inspect or end instances for a remote hub. Returns the exit code."""
    from hostler_agent.instances.cli import main as act  # noqa: PLC0415

    return act(options.arguments)


def _config(options: argparse.Namespace) -> Config:
    from hostler_agent.hub.credentials import kept_credentials  # noqa: PLC0415 - --help needs none

    given = {key: getattr(options, key) for key in _OPTIONS if getattr(options, key) is not None}
    if options.config is not None:
        if given:
            raise ConfigurationError(f"--config and --{next(iter(given))} exclude each other")
        return load(options.config.absolute(), kept_credentials())
    missing = [key for key in ("hub", "name", "token_file", "workdir") if key not in given]
    if missing:
        raise ConfigurationError(f"--config, or --{missing[0].replace('_', '-')}, is missing")
    return from_options(given, Path.cwd())


_ACTIONS: dict[str, Callable[[argparse.Namespace], int]] = {
    "run": lambda options: run(_config(options)),
    "sweep": sweep,
    "service": service,
    "host": host,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hostler-agent", description="Runs a hub's commands on this machine."
    )
    parser.add_argument("--version", action="version", version=f"hostler-agent {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    serve = commands.add_parser("run", help="connect to a hub and serve it until told to stop")
    serve.add_argument("--config", type=Path, metavar="FILE", help="JSON, readable by you alone")
    serve.add_argument("--hub", metavar="URL", help="ws:// or wss:// address of the hub")
    serve.add_argument("--name", help="the worker's name")
    serve.add_argument("--token-file", metavar="FILE", help="the worker's token or password")
    serve.add_argument("--workdir", metavar="DIR", help="where builds live")
    serve.add_argument("--ca-file", metavar="FILE", help="authorities to trust for wss://")
    serve.add_argument("--containment", metavar="KIND", help="how jobs are kept together (auto)")
    serve.add_argument(
        "--insecure", action="store_true", default=None, help="allow ws:// to other machines"
    )
    serve.add_argument("--run-as", metavar="WHOM", help="whose jobs are: build_user or agent")
    serve.add_argument(
        "--build-group",
        action="append",
        dest="build_groups",
        metavar="GROUP",
        help="a group that build users are in (may be repeated)",
    )
    serve.add_argument("--build-uids", metavar="FIRST-LAST", help="uids for build users")
    serve.add_argument(
        "--no-new-privileges",
        action="store_true",
        default=None,
        help="no build gains rights by sudo and the like",
    )
    serve.add_argument("--mark", help="means nothing to us: finds the process in a process list")
    serve.add_argument("--verbose", action="store_true", help="log details")
    clear = commands.add_parser("sweep", help="kill what the jobs of a dead agent left")
    clear.add_argument("--name", required=True, help="the instance, or a permanent worker's name")
    clear.add_argument("--containment", metavar="KIND", help="as the agent was told (auto)")
    clear.add_argument("--verbose", action="store_true", help="log details")
    host = commands.add_parser("host", help="what a hub's drivers do here", add_help=False)
    host.set_defaults(verbose=False)
    host.add_argument("arguments", nargs=argparse.REMAINDER)
    windows = commands.add_parser("service", help="the agent as a Windows service")
    windows.add_argument("action", choices=("prepare", "install", "remove", "run"))
    windows.add_argument(
        "directories", nargs="*", type=Path, metavar="DIR", help="to be ours alone, for prepare"
    )
    windows.add_argument("--config", type=Path, metavar="FILE", help="as for run")
    windows.add_argument("--name", default="hostler-agent", help="the service's (hostler-agent)")
    windows.add_argument("--check", action="store_true", help="say what would be done, do nothing")
    windows.add_argument("--account", help="who it runs as; by default an account of its own")
    windows.add_argument("--verbose", action="store_true", help="log details")
    return parser
