"""`tool_versions`, a command of Hostler's own: finds executables and runs them to get their
versions.

A tool is looked up on the agent's PATH, as builds would find it, and run with `--version` in a job
of its own, so that a tool that hangs, prints too much or leaves processes behind is ended like any
command.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from typing import Optional

from hostler_agent.commands.base import Command
from hostler_agent.jobs.errors import JobError
from hostler_agent.jobs.plan import (
    COMMAND_VARIABLE,
    INSTANCE_VARIABLE,
    JobLimits,
    JobPlan,
    job_environment,
)
from hostler_agent.jobs.receipt import Ended
from hostler_agent.jobs.run import Job
from hostler_agent.wire.extension import TOOL_VERSIONS

MAX_TOOLS = 64
TOOL_S = 10.0
ALL_S = 45.0
OUTPUT_BYTES = 16 * 1024

_POINTED = re.compile(r"\d{1,9}(?:\.\d{1,9})+")
_WHOLE = re.compile(r"(?<![\w.-])\d{1,9}(?![\w.-])")


class ToolVersions(Command):
    """Arguments: `tools`, a list of names without a path; `timeout` of each tool and `maxTime` of
    all in seconds. Tools that remain after `maxTime` are not run.

    The pair `tool_versions` maps each name to `path`, `version` and `problem`, each null if there
    is none.
    """

    name = TOOL_VERSIONS

    _job: Optional[Job] = None
    _interrupted = False
    _skipping: Optional[str] = None

    @property
    def slot_key(self) -> Optional[str]:
        """One for this command alone: the tools are those that a build would find."""
        return f"tools {self.context.command_id}"

    async def run(self) -> None:
        try:
            await super().run()
        finally:
            await self.context.slots.end(self.slot_key or "", ())

    async def execute(self) -> None:
        names = self._names()
        timeout_s = self.arguments.seconds("timeout", TOOL_S) or TOOL_S
        max_time_s = self.arguments.seconds("maxTime", ALL_S) or ALL_S
        ends_at = self.clock.awake() + max_time_s
        found: dict[str, dict[str, Optional[str]]] = {}
        for index, name in enumerate(names):
            left_s = ends_at - self.clock.awake()
            if left_s <= 0:
                self._skipping = self._skipping or f"not asked: {max_time_s:g} s were over"
            found[name] = await self._probe(name, index, min(timeout_s, left_s))
        await self.output.pair(TOOL_VERSIONS, found)
        await self.output.pair("rc", -1 if self._interrupted else 0)

    def interrupt(self, why: str) -> None:
        self._skipping = f"command interrupted: {why}"
        self._interrupted = True
        if self._job is not None:
            self._job.interrupt(Ended.KILLED, self._skipping)

    def _names(self) -> Sequence[str]:
        names = self.arguments.get("tools")
        if (
            not isinstance(names, (list, tuple))
            or len(names) > MAX_TOOLS
            or not all(isinstance(name, str) and _is_bare(name) for name in names)
        ):
            raise self.arguments.wrong("tools", "a list of executables' names", names)
        return names

    async def _probe(self, name: str, index: int, timeout_s: float) -> dict[str, Optional[str]]:
        path = await self.slot.run(find, name)
        version, problem = None, None
        if path is not None and self._skipping is not None:
            problem = self._skipping
        elif path is not None:
            version, problem = await self._run_version_option(path, index, timeout_s)
        return {"path": path, "version": version, "problem": problem}

    async def _run_version_option(
        self, path: str, index: int, timeout_s: float
    ) -> tuple[Optional[str], Optional[str]]:
        output = _VersionOutput()
        plan = self._plan(path, index, timeout_s)
        try:
            self._job = Job(plan, self.context.containment, output, (), self.clock)
            outcome = await self._job.run()
        except (JobError, OSError) as error:
            return None, f"cannot be started: {error}"
        finally:
            self._job = None
        version = output.version()
        if version is not None:
            return version, None
        if outcome.receipt.ended in (Ended.TIMEOUT, Ended.KILLED):
            return None, output.stopped or "it was ended"
        return None, None

    def _plan(self, path: str, index: int, timeout_s: float) -> JobPlan:
        context = self.context
        markers = {
            INSTANCE_VARIABLE: context.containment.root_name,
            COMMAND_VARIABLE: context.command_id,
        }
        return JobPlan(
            command_id=f"{context.command_id}.{index}",
            argv=(path, "--version"),
            workdir=context.workdir if self.slot.user is None else self.slot.user.home,
            # Half of Windows' tools are batch files; nothing of this command line is a stranger's.
            allow_batch=True,
            environment=job_environment(self.slot.environment(os.environ), {}, markers),
            limits=JobLimits(max_time_s=timeout_s),
            user=self.slot.user,
            view=self.slot.view,
            no_new_privileges=True,
        )


class _VersionOutput:
    """Collects a tool's output (a jobs.run.Sink), up to OUTPUT_BYTES per stream."""

    def __init__(self) -> None:
        self.stopped: Optional[str] = None
        self._said = {"stdout": b"", "stderr": b""}

    async def take_output(self, stream: str, data: bytes) -> None:
        room = OUTPUT_BYTES - len(self._said[stream])
        if room > 0:
            self._said[stream] += data[:room]

    async def take_log(self, name: str, data: bytes) -> None:
        """Do nothing: the job has no log files."""

    async def stopping(self, why: str) -> None:
        self.stopped = why

    def version(self) -> Optional[str]:
        """The version in the tool's output; some tools print it to stderr."""
        for stream in ("stdout", "stderr"):
            version = version_in(self._said[stream].decode("utf-8", "replace"))
            if version is not None:
                return version
        return None


def find(name: str) -> Optional[str]:
    """The absolute path of an executable on PATH; None if there is none.

    The current directory is not searched: a build may have left anything there.
    """
    path = shutil.which(name)
    return path if path is not None and os.path.isabs(path) else None  # noqa: PTH117 - a text


def version_in(text: str) -> Optional[str]:
    """The first number with points in it (3.9.1), or else the first integer; None if there is
    neither.
    """
    found = _POINTED.search(text) or _WHOLE.search(text)
    return None if found is None else found.group()


def _is_bare(name: str) -> bool:
    return bool(name) and not set(name) & set('/\\:"\0') and name not in (".", "..")
