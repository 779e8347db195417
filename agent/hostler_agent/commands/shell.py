"""`shell`: runs a command in a job, and reports its output and its end."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Optional

from hostler_agent import machine
from hostler_agent.commands import ending
from hostler_agent.commands.base import Command
from hostler_agent.commands.errors import CommandError
from hostler_agent.commands.secret_files import Owner, SecretFiles
from hostler_agent.jobs.errors import JobError, LimitUnavailable, PlanRefused, StartFailed
from hostler_agent.jobs.plan import (
    COMMAND_VARIABLE,
    INSTANCE_VARIABLE,
    JobLimits,
    JobPlan,
    Resources,
    command_argv,
    job_environment,
)
from hostler_agent.jobs.receipt import Ended, KillReceipt
from hostler_agent.jobs.run import Job, JobOutcome
from hostler_agent.jobs.tail import LogFile
from hostler_agent.wire.extension import CommandSecret, CommandTerms

_START_CODES = {errno.ENOENT: 127, errno.EACCES: 126, errno.ENOEXEC: 126}
"""The return code that a shell gives for a program that it cannot start."""


class Shell(Command):
    name = "shell"

    _job: Optional[Job] = None
    _interrupted: Optional[str] = None

    async def execute(self) -> None:
        self._want = {
            "stdout": self.arguments.flag("want_stdout", True),
            "stderr": self.arguments.flag("want_stderr", True),
        }
        command, shown = _command(self.arguments.get("command"), self)
        plan = self._plan(command)
        logs = self._log_files(plan.workdir)
        await self._claim(plan.workdir)
        await self._make_workdir(plan.workdir)
        with self._secret_files(plan) as paths:
            plan = self._with_secrets(plan, paths)
            await self._announce(plan, shown, logs)
            end = await self._run(plan, logs)
        if isinstance(end, JobOutcome):
            await self._report(plan, end)
        else:
            await self._report_failure(plan, end)

    async def _run(self, plan: JobPlan, logs: list[LogFile]) -> JobOutcome | Exception:
        """Run the job. Returns how it ended, or why it could not be run."""
        if self.arguments.flag("usePTY", False) and not plan.use_pty:
            await self.output.say("header", "WARNING: disabling usePTY for this command\n")
        try:
            self._job = Job(plan, self.context.containment, self, logs, self.clock, self.slot.run)
            if self._interrupted is not None:
                self._job.interrupt(Ended.KILLED, self._interrupted)
            return await self._job.run()
        except (JobError, OSError) as error:
            return error

    def interrupt(self, why: str) -> None:
        self._interrupted = f"command interrupted: {why}"
        if self._job is not None:
            self._job.interrupt(Ended.KILLED, self._interrupted)

    # ---- jobs.run.Sink

    async def take_output(self, stream: str, data: bytes) -> None:
        if self._want[stream]:
            await self.output.write(stream, data)

    async def take_log(self, name: str, data: bytes) -> None:
        await self.output.write_log(name, data)

    async def stopping(self, why: str) -> None:
        self.output.finish_lines()
        await self.output.say("header", f"\n{why}, attempting to kill\n")

    # ---- before

    def _plan(self, command: str | list[str]) -> JobPlan:
        arguments = self.arguments
        workdir = arguments.path("workdir")
        stdin = arguments.get("initial_stdin")
        if stdin is not None and not isinstance(stdin, (str, bytes)):
            raise arguments.wrong("initial_stdin", "a string", stdin)
        markers = {
            INSTANCE_VARIABLE: self.context.containment.root_name,
            COMMAND_VARIABLE: self.context.command_id,
            "PWD": workdir,
        }
        terms = self.context.terms
        return JobPlan(
            command_id=self.context.command_id,
            argv=command_argv(command),
            workdir=workdir,
            is_shell=isinstance(command, str),
            allow_batch=terms is not None and terms.batch_files,
            resources=_resources(terms),
            environment=job_environment(
                self.slot.environment(_own_environment()), self._environment_changes(), markers
            ),
            limits=JobLimits(
                timeout_s=arguments.seconds("timeout"),
                max_time_s=arguments.seconds("maxTime"),
                max_lines=arguments.whole("max_lines"),
                sigterm_time_s=arguments.seconds("sigtermTime"),
            ),
            # A terminal's input cannot be closed as a pipe's can.
            use_pty=arguments.flag("usePTY", False) and stdin is None and machine.HAS_TERMINALS,
            stdin=stdin.encode("utf-8", "surrogateescape") if isinstance(stdin, str) else stdin,
            user=self.slot.user,
            view=self.slot.view,
            no_new_privileges=self.slot.no_new_privileges,
        )

    @contextlib.contextmanager
    def _secret_files(self, plan: JobPlan) -> Iterator[Mapping[str, str]]:
        """The files of the secrets that the command gets as files, by variable, for as long as the
        context lasts. Raises CommandError.
        """
        values = {one.name: one.value or b"" for one in self._secrets() if one.is_file}
        if not values:
            yield {}
            return
        try:
            files = SecretFiles(Path(self.context.workdir), values, _reader(plan))
        except OSError as error:
            raise CommandError(f"shell: the secret files cannot be written: {error}") from error
        try:
            yield files.paths
        finally:
            _remove(files)

    def _secrets(self) -> tuple[CommandSecret, ...]:
        terms = self.context.terms
        found = () if terms is None else terms.secrets
        for secret in found:
            if secret.value is None:
                raise CommandError(f"shell: the value of secret {secret.name} was not sent")
        return found

    def _with_secrets(self, plan: JobPlan, paths: Mapping[str, str]) -> JobPlan:
        """The plan with the secrets as they are: nothing is substituted in them."""
        secrets = self._secrets()
        if not secrets:
            return plan
        given = {one.name: paths.get(one.name) or os.fsdecode(one.value or b"") for one in secrets}
        added = {machine.variable_name(name): value for name, value in given.items()}
        return replace(plan, environment={**plan.environment, **added})

    def _environment_changes(self) -> dict[str, Any]:
        changes = self.arguments.mapping("env")
        for name, value in changes.items():
            texts = value if isinstance(value, (list, tuple)) else [value]
            if value is not None and not all(isinstance(text, str) for text in texts):
                raise self.arguments.wrong(
                    f"env.{name}", "a string, a list of strings or null", value
                )
        return {machine.variable_name(name): value for name, value in changes.items()}

    def _log_files(self, workdir: str) -> list[LogFile]:
        logs = []
        for name, value in self.arguments.mapping("logfiles").items():
            options = value if isinstance(value, dict) else {"filename": value}
            filename = options.get("filename")
            if not isinstance(filename, str) or not filename or "\0" in filename:
                raise self.arguments.wrong(f"logfiles.{name}.filename", "a path", filename)
            path = os.path.join(workdir, filename)  # noqa: PTH118 - as it was given
            logs.append(LogFile(name, path, bool(options.get("follow", False))))
        return logs

    async def _claim(self, workdir: str) -> None:
        try:
            await self.slot.claim([workdir])
        except (OSError, ValueError) as error:
            raise CommandError(f"shell: {error}") from error

    async def _make_workdir(self, workdir: str) -> None:
        if "\0" in workdir or os.path.isdir(workdir):  # noqa: PTH112 - once per command
            return
        try:
            await self.slot.run(functools.partial(Path(workdir).mkdir, parents=True, exist_ok=True))
        except OSError as error:
            # Whether it can be used is found out by the start, which names it.
            await self.output.say("stderr", f"cannot make {workdir}: {error.strerror}\n")

    async def _announce(self, plan: JobPlan, shown: str | list[str], logs: list[LogFile]) -> None:
        limits = plan.limits
        where = f" in dir {plan.workdir}"
        if limits.timeout_s:
            where += f" (timeout {_seconds(limits.timeout_s)})"
        if limits.max_time_s:
            where += f" (maxTime {_seconds(limits.max_time_s)})"
        if plan.resources.are_limited:
            where += f" (limits: {ending.limits_text(plan.resources)})"
        watched = {log.name: log.path for log in logs}
        lines = [
            shown if isinstance(shown, str) else shlex.join(shown),
            where,
            f" watching logfiles {watched}",
            f" argv: {shown}",
        ]
        if self.arguments.flag("logEnviron", True):
            lines.append(" environment:")
            hidden = {machine.variable_name(secret.name) for secret in self._secrets()}
            lines += [
                f"  {name}={'***' if name in hidden else value}"
                for name, value in sorted(plan.environment.items())
            ]
        if plan.stdin:
            lines.append(f" writing {len(plan.stdin)} bytes to stdin")
        lines.append(f" using PTY: {plan.use_pty}")
        await self.output.say("header", "\n".join(lines) + "\n")

    # ---- after

    async def _report(self, plan: JobPlan, outcome: JobOutcome) -> None:
        self.output.finish_output()
        for remark in ending.remarks(outcome, plan.resources):
            await self.output.say("header", f"{remark}\n")
        why = ending.oom_sentence(outcome.receipt, plan.resources)
        await self._close(outcome.receipt, outcome.return_code, why)

    async def _report_failure(self, plan: JobPlan, error: Exception) -> None:
        """Report a command that did not start: with a typed reason, at once, and with a receipt
        (E15).
        """
        if not isinstance(error, (PlanRefused, LimitUnavailable, StartFailed)):
            # Not the user's fault, and perhaps something runs: better no result than a wrong one.
            raise CommandError(f"shell: {error}") from error
        why = f"cannot start the command: {error}"
        await self.output.say("stderr", f"{why}\n")
        code = -1
        if isinstance(error, StartFailed) and error.filename == plan.argv[0]:
            code = _START_CODES.get(error.errno, -1)
        name = self.context.containment.name
        await self._close(KillReceipt(Ended.NOT_STARTED, None, name), code, why)

    async def _close(self, receipt: KillReceipt, return_code: int, why: Optional[str]) -> None:
        if self.context.raw:
            # A stock master writes this line itself when it gets the `rc`.
            line = f"program finished with exit code {return_code}\n"
            await self.output.say("header", line)
            masked = ending.wire_receipt(receipt, why, self.output.masked_text)
            await self.output.pair(*masked.pair())
        reason = ending.failure_reason(receipt, return_code, self.context.raw)
        if reason is not None:
            await self.output.pair("failure_reason", reason)
        await self.output.pair("rc", return_code)


@functools.lru_cache(maxsize=1)
def _own_environment() -> Mapping[str, str]:
    """The agent's environment. It never changes, so it is read once, because os.environ decodes all
    variables at each copy.
    """
    return dict(os.environ)


def _command(value: Any, shell: Shell) -> tuple[str | list[str], str | list[str]]:
    """The command to run, and the text that shows it in the log. Raises BadArguments.

    Buildbot sends a secret as `["obfuscated", secret, what to show instead]`.
    """
    if isinstance(value, (str, bytes)) and value:
        text = _text(value)
        return text, text
    if not isinstance(value, (list, tuple)) or not value:
        raise shell.arguments.wrong("command", "a string or a list of strings", value)
    real, shown = [], []
    for word in value:
        hidden = isinstance(word, (list, tuple)) and len(word) == 3 and word[0] == "obfuscated"
        pair = word[1:] if hidden else (word, word)
        if not all(isinstance(one, (str, bytes)) for one in pair):
            raise shell.arguments.wrong("command", "a string or a list of strings", word)
        real.append(_text(pair[0]))
        shown.append(_text(pair[1]))
    return real, shown


def _text(value: str | bytes) -> str:
    return os.fsdecode(value) if isinstance(value, bytes) else value


def _reader(plan: JobPlan) -> Optional[Owner]:
    """The user that the job runs as; None if that is the agent's own."""
    user = getattr(plan, "user", None)
    return None if user is None else (user.uid, user.gid)


def _remove(files: SecretFiles) -> None:
    try:
        files.remove()
    except OSError as error:
        raise CommandError(f"shell: a secret file cannot be removed: {error}") from error


def _seconds(limit_s: float) -> str:
    return f"{limit_s:g} {'sec' if limit_s == 1 else 'secs'}"


def _resources(terms: Optional[CommandTerms]) -> Resources:
    limits = None if terms is None else terms.limits
    if limits is None:
        return Resources()
    return Resources(limits.memory_bytes, limits.processes, limits.cpu_percent)
