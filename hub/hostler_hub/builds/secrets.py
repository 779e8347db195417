"""Secrets for builds: who may use which, and the values when a step starts.

Each file in the directory is a secret, by its name; ``policy.toml`` beside them has a table for
each secret that anybody may use:

    [deploy-key]
    users = ["ci"]              # the names of the tokens that may submit builds with it
    workers = ["signing-01"]    # only on these workers (default: all)
    isolation = ["user"]        # only where builds are separated so (default: all)

Files and policy are read each time, so a new value and a withdrawn right count from the next step
on. What cannot be read, or be trusted for its mode, gives no rights.
"""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import tomllib
from pydantic import BaseModel, StrictStr, TypeAdapter, ValidationError

from hostler_agent.wire.extension import SECRETS_VERSION, AgentReport, CommandSecret
from hostler_hub.builds.errors import SecretForbidden
from hostler_hub.errors import Forbidden, InvalidRequest
from hostler_hub.runtime.errors import SecretRefused
from hostler_hub.runtime.secrets import read_file
from hostler_hub.specs.build import BuildSpec
from hostler_hub.specs.fields import STRICT
from hostler_hub.specs.secret_ref import BuildSecret

POLICY = "policy.toml"
# Shorter values are in every output, so masking them would hide the log and show the value.
MIN_BYTES = 4

_OTHERS = 0o007
_WRITERS = 0o022


class Grant(BaseModel):
    """Who may use a secret, and where."""

    model_config = STRICT

    users: tuple[StrictStr, ...] = ()
    workers: tuple[StrictStr, ...] | None = None
    isolation: tuple[Literal["user", "container", "none"], ...] | None = None


_Policy = TypeAdapter(dict[str, Grant])


@dataclass(frozen=True, slots=True)
class Use:
    """Who wants to use secrets, by the token's name, and where: on which worker, with which
    isolation of builds. None is not known yet.
    """

    by: str
    worker: str | None = None
    isolation: str | None = None


class BuildSecrets:
    """The secrets in one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def check(self, spec: BuildSpec, by: str) -> None:
        """Check that ``by`` may use the secrets of a build that is submitted, and that each can be
        given. Raises Forbidden, InvalidRequest.
        """
        wanted = list(_wanted(spec))
        if wanted:
            await asyncio.to_thread(self._check, wanted, Use(by, spec.requires.worker))

    async def for_command(
        self,
        secrets: Mapping[str, BuildSecret],
        use: Use,
        report: AgentReport | None,
        command_id: str,
    ) -> tuple[CommandSecret, ...]:
        """The secrets for a command that is about to be sent to the agent with this report. Raises
        SecretForbidden, SecretRefused.

        A command that the agent has already gets no values: it goes on with those that it got.
        """
        names = ", ".join(secrets)
        if report is None:
            raise SecretRefused(
                "a stock Buildbot worker gets no secrets, because it writes what it is sent into "
                f"its log ({names}); let the build require another worker"
            )
        if report.version < SECRETS_VERSION:
            text = f"the worker's agent is too old for secrets ({names}); replace its instance"
            raise SecretRefused(text)
        if any(known.command_id == command_id for known in report.commands):
            return tuple(CommandSecret(name, None) for name in secrets)
        isolation = str(report.facts.get("isolation", "none"))
        return await asyncio.to_thread(self._values, secrets, replace(use, isolation=isolation))

    def _check(self, wanted: list[tuple[str, str, BuildSecret]], use: Use) -> None:
        for pointer, name, secret in wanted:
            self._check_one(pointer, {name: secret}, use)

    def _check_one(self, pointer: str, secret: Mapping[str, BuildSecret], use: Use) -> None:
        try:
            self._values(secret, use)
        except SecretForbidden as refusal:
            raise Forbidden(str(refusal), pointer=pointer) from refusal
        except SecretRefused as refusal:
            raise InvalidRequest(str(refusal), pointer=pointer) from refusal

    def _values(self, secrets: Mapping[str, BuildSecret], use: Use) -> tuple[CommandSecret, ...]:
        policy = self._policy()
        found = []
        for name, secret in secrets.items():
            _require(policy.get(secret.ref), secret.ref, use)
            content = read_file(self._directory, secret.ref, _OTHERS)
            is_file = secret.as_ == "file"
            found.append(CommandSecret(name, _value(secret.ref, content, is_file), is_file))
        return tuple(found)

    def _policy(self) -> Mapping[str, Grant]:
        """The grants by secret. Raises SecretRefused if they cannot be read or trusted."""
        try:
            mode = self._directory.stat().st_mode
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise SecretRefused(f"{self._directory}: {error.strerror}") from None
        if mode & _WRITERS:
            text = f"{self._directory} has mode {stat.S_IMODE(mode):04o}"
            raise SecretRefused(f"{text}, so others may change it; run chmod go-w")
        if not (self._directory / POLICY).exists():
            return {}
        try:
            policy = tomllib.loads(read_file(self._directory, POLICY, _WRITERS).decode())
            return {**_Policy.validate_python(policy), POLICY: Grant()}
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise SecretRefused(f"{POLICY} of the build secrets: {where}: {first['msg']}") from None
        except ValueError as error:
            raise SecretRefused(f"{POLICY} of the build secrets: {error}") from None


def _wanted(spec: BuildSpec) -> Iterator[tuple[str, str, BuildSecret]]:
    """Each secret of the build with its variable, and the JSON pointer to it."""
    for name, secret in spec.secrets.items():
        yield f"/secrets/{name}", name, secret
    for index, step in enumerate(spec.steps):
        for name, secret in step.secrets.items():
            yield f"/steps/{index}/secrets/{name}", name, secret


def _require(grant: Grant | None, ref: str, use: Use) -> None:
    """Raise SecretForbidden unless the grant covers the use. Of a secret that is not there the
    answer is the same: nobody learns what others have.
    """
    if grant is None or use.by not in grant.users:
        raise SecretForbidden(
            f"secret {ref!r} may not be used by {use.by!r}; the hub's owner can add this token's "
            f"name to the users of {ref!r} in {POLICY} of the build secrets"
        )
    for what, allowed, actual in (
        ("on worker", grant.workers, use.worker),
        ("with isolation", grant.isolation, use.isolation),
    ):
        if allowed is not None and actual is not None and actual not in allowed:
            raise SecretForbidden(
                f"secret {ref!r} may not be used {what} {actual!r}, but where it is "
                f"{' or '.join(allowed) or 'nothing'}; let the build require that, or the hub's "
                f"owner change it in {POLICY} of the build secrets"
            )


def _value(ref: str, content: bytes, is_file: bool) -> bytes:
    """The secret as a command gets it. Raises SecretRefused."""
    if len(content.strip()) < MIN_BYTES:
        raise SecretRefused(
            f"secret {ref!r} has fewer than {MIN_BYTES} bytes, which cannot be masked in logs; "
            "make it longer"
        )
    if is_file:
        return content
    value = content.rstrip(b"\r\n")
    try:
        is_text = b"\0" not in value and bool(value.decode())
    except UnicodeDecodeError:
        is_text = False
    if not is_text:
        raise SecretRefused(f"secret {ref!r} is no UTF-8 text; give it to the build as a file")
    return value
