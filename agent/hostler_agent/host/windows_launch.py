"""The beginning of an agent on Windows: `host launch DIRECTORY --mark MARK`, by whatever starts it.

It puts itself into a Job Object that is named after the instance, so that whoever looks finds all
that the agent ever started, or nothing at all, and never a stranger with a reused pid. Then it
looks whether the instance was ended meanwhile: an end first says so and then looks for the job, so
that one of the two sees the other.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

assert sys.platform == "win32"

from hostler_agent.host.launch import LOG, RECORD, Mark
from hostler_agent.host.places import Place, read_json, write_private
from hostler_agent.host.windows_processes import ENVIRONMENT, job_name
from hostler_agent.jobs.windows_job import JobObject

EXIT_REFUSED = 3


def launch(arguments: Sequence[str]) -> int:
    """The agent, from here to its end."""
    directory, mark = Path(arguments[0]), Mark.parse(arguments[2])
    if mark is None:
        return EXIT_REFUSED
    _log_to(directory / LOG)
    job = JobObject.named(job_name(mark.hub, mark.instance))
    if job is None:  # another is quicker
        return EXIT_REFUSED
    record = {"pid": os.getpid(), "started": time.time_ns() // 1_000_000, "boot": ""}
    write_private(directory / RECORD, json.dumps(record))
    job.enter()
    if Place(str(directory.parents[1])).is_gone(mark.instance):
        return EXIT_REFUSED
    os.environ.update(read_json(directory / ENVIRONMENT))
    os.chdir(directory)
    from hostler_agent import cli  # noqa: PLC0415 - takes a while, and is not always needed

    # The job lives as long as its handle, which is ours alone.
    return cli.main(["run", "--config", str(directory / "agent.json"), "--mark", str(mark)])


def _log_to(path: Path) -> None:
    """Nobody reads what we say but in this file."""
    log = open(path, "a", encoding="utf-8", errors="backslashreplace", buffering=1)  # noqa: SIM115
    sys.stdout = sys.stderr = log
