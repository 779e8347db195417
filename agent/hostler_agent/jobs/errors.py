"""Exceptions of jobs, and whose fault each is.

JobError
├── PlanRefused            the command can never be started as it was asked for (the user)
├── LimitUnavailable       a limit was asked for that this machine cannot enforce (the machine)
├── StartFailed            the operating system would not start it (the user, or the machine)
├── SpawnerLost            the process that starts and reaps jobs is gone (the machine)
└── ContainmentUnavailable this machine cannot contain jobs in the way that was asked for
"""

from __future__ import annotations

import os
from typing import Optional


class JobError(Exception):
    """Base of the errors that keep a job from running."""


class PlanRefused(JobError):
    """No process can be started with these arguments or this environment. The text has
    the sizes.
    """


class LimitUnavailable(JobError):
    """A limit cannot be enforced, so the job is not run without it. The text names the
    controller.
    """

    def __init__(self, what: str, controller: str, why: str) -> None:
        super().__init__(f"{what} cannot be limited on this worker: controller {controller} {why}")
        self.controller = controller


class StartFailed(JobError):
    """The process could not be started. `errno` is the operating system's; `filename` is the
    program or working directory that the error is about; `doing` is what was being done, if it was
    a preparation.
    """

    def __init__(self, errno: int, filename: Optional[str], doing: Optional[str] = None) -> None:
        where = "" if doing is None else f"{doing}: "
        what = "" if filename is None else f": {filename}"
        super().__init__(f"{where}{os.strerror(errno)}{what}")
        self.errno = errno
        self.filename = filename


class SpawnerLost(JobError):
    """The spawner ended while a job depended on it."""


class ContainmentUnavailable(JobError):
    """The containment cannot be used; the text says in one line what is missing."""
