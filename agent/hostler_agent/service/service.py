r"""The agent as a Windows service: installed, removed, and run by Windows' service manager.

The service runs python.exe itself with `service run`, so that it is the same program with the same
packages as in a console; the single file, `agent.pyz`, works as well.

It runs under an account of its own (`NT SERVICE\<name>`), which may do only what it is granted
here: read its configuration and write its workdir.

Stopping it drains it (`serving`). When the machine shuts down, the deadline is Windows' own, and
short. After a failure the service manager restarts it.
"""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Optional

assert sys.platform == "win32"

from hostler_agent.errors import ConfigurationError
from hostler_agent.hub.session_secret import STATE_DIRECTORY
from hostler_agent.service import manager
from hostler_agent.service.dispatcher import ERROR_NOT_STARTED_BY_THE_MANAGER, ServiceProcess
from hostler_agent.service.serving import Serving
from hostler_agent.win32 import security

if TYPE_CHECKING:
    from hostler_agent.config import Config

STOP_DEADLINE_S = 60.0
_STOP_EXTRA_S = 30.0
_PAUSE_S = 0.1

PREPARED, INSTALLED, CHANGED, REMOVED = "prepared", "installed", "changed", "removed"
UNCHANGED = "unchanged"

_RESTARTS_MS = (5_000, 30_000, 120_000)
_FORGIVEN_S = 3600
_LOG_BYTES = 5 * 2**20


@dataclass(frozen=True)
class Installation:
    """What to install. `account` None is the service's own; another account must be granted its
    rights by the operator.
    """

    name: str
    config_file: Path
    config: Config
    account: Optional[str] = None

    @property
    def definition(self) -> manager.Definition:
        return manager.Definition(
            f"Hostler agent {self.config.name}",
            subprocess.list2cmdline(_command(self)),
            manager.AUTO_START,
            self.account or f"NT SERVICE\\{self.name}",
        )


def prepare(directories: Sequence[Path], *, is_trial: bool = False) -> str:
    """Create missing directories for their owner, the system and its administrators alone. Raises
    ConfigurationError, also if one is open to others.
    """
    missing = [each for each in directories if not each.exists()]
    try:
        for each in directories:
            if not (is_trial and each in missing):
                security.make_private(each.absolute())
    except OSError as error:
        raise ConfigurationError(f"{error.filename or each}: {error.strerror}") from error
    except security.NotPrivate as error:
        raise ConfigurationError(str(error)) from error
    return PREPARED if missing else UNCHANGED


def install(wanted: Installation, *, is_trial: bool = False) -> str:
    """Add the service, to start with the machine, or change an existing one to match; does not
    start it. Returns which of these was done; a trial only says what would be. Raises
    ConfigurationError.
    """
    try:
        service = manager.find(wanted.name)
        if service is None:
            if not is_trial:
                _add(wanted)
            return INSTALLED
        with contextlib.closing(service):
            is_same = service.definition() == wanted.definition
            if not is_trial:
                if not is_same:
                    service.define(wanted.definition)
                _equip(service, wanted)
            return UNCHANGED if is_same else CHANGED
    except OSError as error:
        raise ConfigurationError(f"service {wanted.name!r}: {error.strerror}") from error


def remove(name: str, *, is_trial: bool = False) -> str:
    """Stop the service, wait for its end, and remove it, if it exists. Raises
    ConfigurationError.
    """
    try:
        service = manager.find(name)
        if service is None:
            return UNCHANGED
        with contextlib.closing(service):
            if not is_trial:
                _stop(service, name)
                service.delete()
            return REMOVED
    except OSError as error:
        raise ConfigurationError(f"service {name!r}: {error.strerror}") from error


def run(name: str, config: Config) -> None:
    """Run as the service; for the service manager alone. Returns when the service has stopped."""
    _log_to_file(config)
    serving = Serving(lambda: config)
    try:
        ServiceProcess(name, serving.run, serving.end, STOP_DEADLINE_S).run()
    except OSError as error:
        if error.winerror != ERROR_NOT_STARTED_BY_THE_MANAGER:
            raise
        raise ConfigurationError(
            f"only Windows' service manager can do that ({error.strerror}); to run in a console: "
            "hostler-agent run"
        ) from error


def _add(wanted: Installation) -> None:
    with contextlib.closing(manager.create(wanted.name, wanted.definition)) as service:
        try:
            _equip(service, wanted)
        except BaseException:
            service.delete()
            raise


def _equip(service: manager.Service, wanted: Installation) -> None:
    """Set up what is not in the service's definition. Raises OSError or ConfigurationError."""
    service.describe(f"Runs builds for {wanted.config.hub}")
    service.restart_on_failure(_RESTARTS_MS, _FORGIVEN_S)
    if wanted.account is None:
        _grant(wanted, wanted.definition.account)


def _stop(service: manager.Service, name: str) -> None:
    service.ask_to_stop()
    deadline = time.monotonic() + STOP_DEADLINE_S + _STOP_EXTRA_S
    while service.status().state != manager.STOPPED:
        if time.monotonic() >= deadline:
            raise ConfigurationError(f"service {name!r} does not stop")
        time.sleep(_PAUSE_S)


def _command(wanted: Installation) -> list[str]:
    program = ["-I", "-m", "hostler_agent"]
    if sys.argv[0].lower().endswith(".pyz"):
        program = ["-I", "-S", str(Path(sys.argv[0]).absolute())]
    options = ["--name", wanted.name, "--config", str(wanted.config_file)]
    return [sys.executable, *program, "service", "run", *options]


def _grant(wanted: Installation, account: str) -> None:
    """Grant the account its rights. Raises ConfigurationError."""
    config = wanted.config
    config.workdir.mkdir(parents=True, exist_ok=True)
    read, modify = "R", "(OI)(CI)M"
    rights = {wanted.config_file: read, config.workdir: modify}
    rights.update({each: read for each in (config.token_file, config.ca_file) if each is not None})
    icacls = Path(os.environ["SYSTEMROOT"], "System32", "icacls.exe")
    for path, right in rights.items():
        done = subprocess.run(
            [str(icacls), str(path), "/grant", f"{account}:{right}"],
            capture_output=True,
            check=False,
        )
        if done.returncode:
            raise ConfigurationError(f"{path} cannot be granted to {account} (icacls failed)")


def _log_to_file(config: Config) -> None:
    """Log to a file beside the state in the workdir, as a service has no console."""
    directory = config.workdir / STATE_DIRECTORY
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    handler = logging.handlers.RotatingFileHandler(
        directory / "agent.log", maxBytes=_LOG_BYTES, backupCount=3, encoding="utf-8"
    )
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.getLogger().level, force=True)
