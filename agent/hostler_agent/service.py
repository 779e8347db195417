"""The agent as a Windows service: installed, removed, and run by Windows' service manager.

The only place that needs pywin32. The service is python.exe itself, told `service run`, so that it
is the same program with the same packages as in a console.

It runs as an account of its own (`NT SERVICE\\<name>`), which may do nothing but what it is granted
here: to read its configuration and to write its workdir.

To stop it means to drain it: no new commands, and those that run may finish until a deadline; when
the machine shuts down, that is Windows' own and short. Told to go away by its hub, it stops and
stays stopped; a failure is for the service manager to restart.
"""

from __future__ import annotations

import asyncio
import logging
import logging.handlers
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Optional

assert sys.platform == "win32"

from hostler_agent.errors import ConfigurationError
from hostler_agent.sessionfile import STATE_DIRECTORY

try:
    import pywintypes
    import servicemanager
    import win32service
    import win32serviceutil
except ImportError as error:
    raise ConfigurationError("services need pywin32; run: python -m pip install pywin32") from error

if TYPE_CHECKING:
    from hostler_agent.config import Config
    from hostler_agent.daemon import Daemon

STOP_DEADLINE_S = 60.0
SHUTDOWN_DEADLINE_S = 3.0
"""Windows gives a service five seconds when the machine shuts down."""

_RESTARTS_MS = (5_000, 30_000, 120_000)
_FORGIVEN_S = 3600
_ERROR_INVALID_LEVEL = 124
_LOG_BYTES = 5 * 2**20

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Installation:
    """`account` None is the service's own; whoever chooses another one grants it what it needs."""

    name: str
    config_file: Path
    config: Config
    account: Optional[str] = None


def install(wanted: Installation) -> None:
    """Adds the service, to start with the machine; does not start it. Raises ConfigurationError."""
    own = f"NT SERVICE\\{wanted.name}"
    try:
        manager = win32service.OpenSCManager(None, None, win32service.SC_MANAGER_CREATE_SERVICE)
        service = win32service.CreateService(
            manager,
            wanted.name,
            f"Hostler agent {wanted.config.name}",
            win32service.SERVICE_ALL_ACCESS,
            win32service.SERVICE_WIN32_OWN_PROCESS,
            win32service.SERVICE_AUTO_START,
            win32service.SERVICE_ERROR_NORMAL,
            subprocess.list2cmdline(_command(wanted)),
            None,
            0,
            None,
            wanted.account or own,
            None,
        )
    except pywintypes.error as error:
        raise ConfigurationError(f"service {wanted.name!r}: {error.strerror}") from error
    try:
        _configure(service, wanted)
        if wanted.account is None:
            _grant(wanted, own)
    except BaseException:
        win32service.DeleteService(service)
        raise
    finally:
        win32service.CloseServiceHandle(service)


def remove(name: str) -> None:
    """Stops it, waits for that, and removes it. Raises ConfigurationError."""
    try:
        if win32serviceutil.QueryServiceStatus(name)[1] != win32service.SERVICE_STOPPED:
            win32serviceutil.StopService(name)
            win32serviceutil.WaitForServiceStatus(
                name, win32service.SERVICE_STOPPED, int(STOP_DEADLINE_S) + 30
            )
        win32serviceutil.RemoveService(name)
    except pywintypes.error as error:
        raise ConfigurationError(f"service {name!r}: {error.strerror}") from error


def run(name: str, config: Config) -> None:
    """For the service manager alone: returns when the service has stopped."""
    _log_to_file(config)
    AgentService.config = config
    try:
        servicemanager.Initialize(name, None)
        servicemanager.PrepareToHostSingle(AgentService)
        servicemanager.StartServiceCtrlDispatcher()
    except pywintypes.error as error:
        raise ConfigurationError(
            f"only Windows' service manager can do that ({error.strerror}); to run in a console: "
            "hostler-agent run"
        ) from error


class AgentService(win32serviceutil.ServiceFramework):  # type: ignore[misc] # pywin32 has no types
    """Its methods' names are pywin32's. Runs in a thread of the service manager's."""

    _svc_name_ = "hostler-agent"
    config: ClassVar[Config]

    def __init__(self, arguments: Any) -> None:
        super().__init__(arguments)
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        self._daemon: Optional[Daemon] = None
        self._stop_within_s: Optional[float] = None

    def SvcDoRun(self) -> None:  # noqa: N802
        from hostler_agent import cli  # noqa: PLC0415

        try:
            cli.run(self.config, self._started)
        except BaseException:
            # Raised again: pywin32 tells the service manager, which starts us again later.
            log.exception("the agent has failed")
            raise

    def SvcStop(self) -> None:  # noqa: N802
        self._end(STOP_DEADLINE_S)

    def SvcShutdown(self) -> None:  # noqa: N802
        self._end(SHUTDOWN_DEADLINE_S)

    def _started(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._loop = asyncio.get_running_loop()
        if self._stop_within_s is not None:
            self._drain(self._stop_within_s)

    def _end(self, within_s: float) -> None:
        wait_hint_ms = int((within_s + 30) * 1000)
        self.ReportServiceStatus(win32service.SERVICE_STOP_PENDING, waitHint=wait_hint_ms)
        self._stop_within_s = within_s
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._drain, within_s)

    def _drain(self, within_s: float) -> None:
        assert self._loop is not None
        assert self._daemon is not None
        self._daemon.finish()
        self._loop.call_later(within_s, self._daemon.stop)


def _command(wanted: Installation) -> list[str]:
    program = ["-m", "hostler_agent"]
    if sys.argv[0].lower().endswith(".pyz"):
        program = [str(Path(sys.argv[0]).absolute())]
    options = ["--name", wanted.name, "--config", str(wanted.config_file)]
    return [sys.executable, *program, "service", "run", *options]


def _configure(service: Any, wanted: Installation) -> None:
    change = win32service.ChangeServiceConfig2
    description = f"Runs builds for {wanted.config.hub}"
    change(service, win32service.SERVICE_CONFIG_DESCRIPTION, description)
    restarts = [(win32service.SC_ACTION_RESTART, delay_ms) for delay_ms in _RESTARTS_MS]
    change(
        service,
        win32service.SERVICE_CONFIG_FAILURE_ACTIONS,
        {"ResetPeriod": _FORGIVEN_S, "RebootMsg": None, "Command": None, "Actions": restarts},
    )
    try:
        # Also when it ends by itself with an error, not only when its process is killed.
        change(service, win32service.SERVICE_CONFIG_FAILURE_ACTIONS_FLAG, True)
    except pywintypes.error as error:
        if error.winerror != _ERROR_INVALID_LEVEL:  # Wine 8 does not know it
            raise


def _grant(wanted: Installation, account: str) -> None:
    """Raises ConfigurationError."""
    wanted.config.workdir.mkdir(parents=True, exist_ok=True)
    read, modify = "R", "(OI)(CI)M"
    rights = {wanted.config_file: read, wanted.config.workdir: modify}
    if wanted.config.token_file is not None:
        rights[wanted.config.token_file] = read
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
    """A service has no console; its log is beside the state that it keeps in its workdir."""
    directory = config.workdir / STATE_DIRECTORY
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    handler = logging.handlers.RotatingFileHandler(
        directory / "agent.log", maxBytes=_LOG_BYTES, backupCount=3, encoding="utf-8"
    )
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.getLogger().level, force=True)
