"""The beginning of an agent on Windows, by whatever starts it: `host launch DIRECTORY --mark MARK`,
and `--service` where that is the service manager.

It puts itself into a Job Object that is named after the instance, so that whoever looks finds all
that the agent ever started, or nothing at all, and never a stranger with a reused pid. Then it
looks whether the instance was ended meanwhile: an end first says so and then looks for the job, so
that one of the two sees the other.
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
"""Who stops the service by hand may wait that long for its builds."""
_HOME = {
    "USERPROFILE": "",
    "APPDATA": r"AppData\Roaming",
    "LOCALAPPDATA": r"AppData\Local",
    "TEMP": r"AppData\Local\Temp",
    "TMP": r"AppData\Local\Temp",
}
"""Variables that say where a user's files are, and where those of a service's builds are beneath
its instance, to go with it: its account's own would be all services'."""


def launch(arguments: Sequence[str]) -> int:
    """The agent, from here to its end."""
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
    """The same, as the service that this process was started as."""
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
    """Into the instance's job, whose only handle lives as long as this process, and into its
    directory; False for an instance that is not to be started any more."""
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
    """Nobody reads what we say but in this file."""
    log = open(path, "a", encoding="utf-8", errors="backslashreplace", buffering=1)  # noqa: SIM115
    sys.stdout = sys.stderr = log
