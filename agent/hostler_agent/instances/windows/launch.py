"""Runs a new agent on Windows: `host launch DIRECTORY --mark MARK`, with `--service` if the service
manager started it.

The process enters a Job Object that is named after the instance. Whoever looks the job up finds all
processes that the agent ever started, or none, but never an unrelated process with a reused pid.
Then it checks whether the instance was ended meanwhile: an end first marks the instance as gone and
then looks for the job, so that one of the two sees the other.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

assert sys.platform == "win32"

from hostler_agent.config import Config, load
from hostler_agent.errors import ConfigurationError
from hostler_agent.instances.directories import Directories, read_json
from hostler_agent.instances.launch import LOG, RECORD
from hostler_agent.instances.mark import Mark
from hostler_agent.instances.windows import services
from hostler_agent.instances.windows.processes import ENVIRONMENT, job_name
from hostler_agent.jobs.windows.job_object import JobObject
from hostler_agent.private_files import write_private
from hostler_agent.run import LOG_FORMAT, guarded, run

EXIT_REFUSED = 3
CONFIG = "agent.json"
SERVICE_PATIENCE_S = 5.0
"""How long the instance's builds may take to end if a person stops the service, in seconds."""
_HOME = {
    "USERPROFILE": "",
    "APPDATA": r"AppData\Roaming",
    "LOCALAPPDATA": r"AppData\Local",
    "TEMP": r"AppData\Local\Temp",
    "TMP": r"AppData\Local\Temp",
}
"""The variables that name a user's directories, with the path of each below the instance's `home`.
A service's builds use these, which are removed with the instance; those of the service's account
would be shared by all services."""


def launch(arguments: Sequence[str]) -> int:
    """Run the agent until it ends. `arguments`: DIRECTORY, `--mark`, MARK, and optionally
    `--service`. Returns the exit code.
    """
    directory, mark = Path(arguments[0]), Mark.parse(arguments[2])
    if mark is None:
        return EXIT_REFUSED
    _log_to(directory / LOG)
    if services.OPTION in arguments[3:]:
        return _serve(directory, mark)
    if not _enter(directory, mark):
        return EXIT_REFUSED
    return guarded(lambda: run(load(directory / CONFIG)))


def _serve(directory: Path, mark: Mark) -> int:
    """Run the agent as the Windows service that this process was started for. Returns the exit
    code.
    """
    from hostler_agent.service.dispatcher import ServiceProcess  # noqa: PLC0415
    from hostler_agent.service.serving import Serving  # noqa: PLC0415

    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT, stream=sys.stderr, force=True)

    def prepare() -> Config:
        _make_home(directory / "home")
        if not _enter(directory, mark):
            raise ConfigurationError(f"instance {mark.instance} runs already, or was ended")
        return load(directory / CONFIG)

    serving = Serving(prepare)
    name = services.name_of(mark.instance)
    ServiceProcess(name, serving.run, serving.end, SERVICE_PATIENCE_S).run()
    return 0


def _enter(directory: Path, mark: Mark) -> bool:
    """Enter the instance's Job Object, whose only handle is open as long as this process lives, and
    the instance's directory and environment. Returns False if the instance runs already or was
    ended.
    """
    job = JobObject.named(job_name(mark.hub, mark.instance))
    if job is None:  # another is quicker
        return False
    record = {"pid": os.getpid(), "started": time.time_ns() // 1_000_000, "boot": ""}
    write_private(directory / RECORD, json.dumps(record), sync=False)
    job.enter()
    if Directories(str(directory.parents[1])).is_gone(mark.instance):
        return False
    os.environ.update(read_json(directory / ENVIRONMENT))
    os.chdir(directory)
    return True


def _make_home(home: Path) -> None:
    for name, beneath in _HOME.items():
        path = home / beneath
        path.mkdir(parents=True, exist_ok=True)
        os.environ[name] = str(path)


def _log_to(path: Path) -> None:
    """Redirect standard output and error to the log file, which is the only place that anyone
    reads.
    """
    log = open(path, "a", encoding="utf-8", errors="backslashreplace", buffering=1)  # noqa: SIM115
    sys.stdout = sys.stderr = log
