"""Runs an agent until it ends: logging, containment, signals and exit code."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from typing import Callable, Optional

from hostler_agent import __version__
from hostler_agent.config import Config
from hostler_agent.daemon import Daemon
from hostler_agent.errors import ConfigurationError
from hostler_agent.jobs import Containment

EXIT_STOPPED = 0
EXIT_UNEXPECTED = 1
EXIT_CONFIGURATION = 2
LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

log = logging.getLogger(__name__)


def guarded(action: Callable[[], int], *, verbose: bool = False) -> int:
    """Set up logging, call the action, and return its exit code or that of its exception."""
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, format=LOG_FORMAT)
    # The library logs whole frames and the credentials' header at DEBUG.
    logging.getLogger("websockets").setLevel(logging.INFO)
    try:
        return action()
    except ConfigurationError as error:
        print(f"hostler-agent: {error}", file=sys.stderr)
        return EXIT_CONFIGURATION
    except KeyboardInterrupt:
        return EXIT_STOPPED
    except Exception:
        # The outermost boundary: say what happened, and let whoever supervises us try again.
        log.exception("the agent has failed")
        return EXIT_UNEXPECTED


def run(config: Config, started: Optional[Callable[[Daemon], None]] = None) -> int:
    """Run the agent until it is told to stop; return the exit code. Raises ConfigurationError.

    `started` is called with the daemon when it has been created; without it, signals stop the
    daemon.
    """
    # Imported here so that --help and a bad configuration answer at once.
    from hostler_agent import machine  # noqa: PLC0415
    from hostler_agent.commands import COMMANDS, VERSIONS  # noqa: PLC0415
    from hostler_agent.commands.slots import make_slots  # noqa: PLC0415
    from hostler_agent.daemon import Daemon, Toolbox  # noqa: PLC0415
    from hostler_agent.machine.facts import USER  # noqa: PLC0415

    containment = containment_of(config.containment, config.root_name)
    slots = make_slots(config)
    machine.guard_against_oom()

    toolbox = Toolbox(COMMANDS, VERSIONS, containment, slots, config.is_container)
    if toolbox.isolation != USER and not machine.forbid_inspection():
        log.warning("builds may read the agent's memory, and attach in its place")

    async def serve() -> bool:
        """Run the daemon to its end. Returns whether the machine is to be switched off."""
        daemon = Daemon(config, toolbox)
        (started or _obey_signals)(daemon)
        log.info("agent %s of %s serves %s", __version__, config.name, config.hub)
        # The objects made so far live as long as the agent: exempt them from garbage collection.
        gc.freeze()
        await daemon.run()
        if config.at_end == "poweroff_if_orphaned":
            return daemon.is_orphaned
        return daemon.is_unwanted and config.at_end == "poweroff"

    is_over = asyncio.run(serve())
    log.info("stopped")
    if is_over and not machine.power_off():
        log.error("nothing here would switch the machine off")
        return EXIT_UNEXPECTED
    return EXIT_STOPPED


def containment_of(preference: str, root_name: str) -> Containment:
    """The containment that the configuration names. Raises ConfigurationError."""
    from hostler_agent.jobs import choose_containment  # noqa: PLC0415
    from hostler_agent.jobs.errors import ContainmentUnavailable  # noqa: PLC0415

    try:
        return choose_containment(preference, root_name)
    except ContainmentUnavailable as error:
        raise ConfigurationError(f"option 'containment': {error}") from error


def _obey_signals(daemon: Daemon) -> None:
    from hostler_agent import machine  # noqa: PLC0415

    loop = asyncio.get_running_loop()
    finish_signals, stop_signals = machine.stop_signals()
    for signals, react in ((finish_signals, daemon.finish), (stop_signals, daemon.stop)):
        for number in signals:
            machine.on_signal(loop, number, react)
