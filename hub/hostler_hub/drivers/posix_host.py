"""The agent's `host` verb on a machine with a POSIX shell and Python, by whatever transport.

Theory of operation. One command does everything: a few lines of shell look for the agent of the
wanted digest and run it, and it reads the request and answers in a frame (`hostler_agent.host`).
Only where that digest is missing the archive is pushed and unpacked, once for all hubs and workers.
The shell's own answers are exit statuses that say for sure that the request was not carried out.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hostler_agent.host import reply as replies
from hostler_hub.drivers.contract import AgentArchive
from hostler_hub.transports.contract import Command, Outcome, Transport

PUSH_DEADLINE_S = 60.0
_SAID_BYTES = 400

NO_AGENT, NO_PYTHON, OLD_PYTHON, NEVER_WAS, NO_DIRECTORY = 90, 91, 92, 93, 94
# What a shell or Python answer when they could not even begin.
_NOT_RUN = (2, NO_AGENT, NO_PYTHON, OLD_PYTHON, NO_DIRECTORY, 126, 127)

_EXPAND = """\
d=$1; case $d in "~/"*) d=$HOME/${d#"~/"};; esac
p=$3; command -v "$p" >/dev/null 2>&1 || exit 91
"""
_CALL = (
    _EXPAND
    + """\
a=$d/agents/$2
[ -d "$a" ] && { shift 3; exec "$p" -I -S "$a" host "$@"; }
umask 077; mkdir -p "$d/agents" || exit 94
printf '\\n@hostler-at %s %s\\n' "$6" "$d"; exit 90
"""
)
_INSTALL = _EXPAND + 'a=$d/agents/$2; shift 3; exec "$p" -I -S "$a" host "$@"\n'
# What was never started needs no Python to be ended. The link is made or not, whoever else tries:
# a start that arrives later finds that it is over.
_END = """\
d=$1; case $d in "~/"*) d=$HOME/${d#"~/"};; esac
umask 077; mkdir -p "$d/instances" || exit 94
t=$d/instances/.$2.$$; printf gone >"$t" || exit 1
ln "$t" "$d/instances/$2.lock" 2>/dev/null && { rm -f "$t"; exit 93; }
rm -f "$t"
"""


class HostFailed(Exception):
    """The text has the machine's words; `ran` is False when the request was surely not carried out,
    `kind` one of `hostler_agent.host.errors`, or empty.
    """

    def __init__(self, text: str, *, kind: str = "", ran: bool = True) -> None:
        super().__init__(text)
        self.kind = kind
        self.ran = ran


@dataclass(frozen=True, slots=True)
class Site:
    """Where on the machine agents live, and on what they run."""

    directory: str
    python: str


class PosixHost:
    """One machine. All methods raise HostFailed and TransportError."""

    def __init__(self, transport: Transport, site: Site, archive: AgentArchive) -> None:
        self._transport = transport
        self._site = site
        self._archive = archive

    async def call(
        self,
        action: str,
        request: Mapping[str, Any],
        deadline_s: float,
        sending: Callable[[], None] | None = None,
    ) -> dict[str, Any]:
        """One act; pushes the agent if it is not there."""
        outcome, nonce = await self._run(action, request, deadline_s, sending)
        if outcome.status == NO_AGENT and replies.find(nonce, outcome.stdout) is None:
            await self._push(_directory(outcome, nonce) or self._site.directory)
            outcome, nonce = await self._run(action, request, deadline_s, sending)
        return self._reply(outcome, nonce)

    async def end(self, instance: str, deadline_s: float) -> bool:
        """Whether it was never started, and from now on never will be."""
        argv = ["/bin/sh", "-c", _END, "hostler", self._site.directory, instance]
        outcome = await self._transport.run(Command(argv, deadline_s=deadline_s))
        return outcome.status == NEVER_WAS

    async def _push(self, directory: str) -> None:
        """To a name of its own, checked by its digest and unpacked there, then renamed."""
        nonce = secrets.token_hex(8)
        name = f".push-{nonce}.pyz"
        content = self._archive.path.read_bytes()
        await self._transport.put(f"{directory}/agents/{name}", content, PUSH_DEADLINE_S)
        request = {"directory": self._site.directory, "sha256": self._archive.sha256}
        argv = self._argv(_INSTALL, name, "install", nonce)
        command = Command(argv, json.dumps(request).encode(), PUSH_DEADLINE_S)
        try:
            self._reply(await self._transport.run(command), nonce)
        except HostFailed as error:
            raise HostFailed(str(error), kind=error.kind, ran=False) from error

    async def _run(
        self,
        action: str,
        request: Mapping[str, Any],
        deadline_s: float,
        sending: Callable[[], None] | None,
    ) -> tuple[Outcome, str]:
        nonce = secrets.token_hex(8)
        content = json.dumps({"directory": self._site.directory, **request}).encode()
        argv = self._argv(_CALL, self._archive.sha256, action, nonce)
        command = Command(argv, content, deadline_s, sending=sending)
        return await self._transport.run(command), nonce

    def _argv(self, script: str, agent: str, action: str, nonce: str) -> list[str]:
        where = [self._site.directory, agent, self._site.python]
        return ["/bin/sh", "-c", script, "hostler", *where, action, "--reply", nonce]

    def _reply(self, outcome: Outcome, nonce: str) -> dict[str, Any]:
        reply = replies.find(nonce, outcome.stdout)
        if reply is None:
            raise self._unanswered(outcome)
        error = reply.get("error")
        if isinstance(error, dict):
            raise HostFailed(str(error.get("text")), kind=str(error.get("kind")))
        return reply

    def _unanswered(self, outcome: Outcome) -> HostFailed:
        ran = outcome.status not in _NOT_RUN
        python = self._site.python
        if outcome.status == NO_PYTHON:
            return HostFailed(f"option 'python': there is no {python!r} there", ran=ran)
        if outcome.status == NO_DIRECTORY:
            said = outcome.stderr.decode("utf-8", "replace").strip()[-_SAID_BYTES:]
            return HostFailed(f"option 'directory': {said}", ran=ran)
        said = (outcome.stderr or outcome.stdout).decode("utf-8", "replace").strip()
        words = f"exit status {outcome.status}" + (f": {said[-_SAID_BYTES:]}" if said else "")
        if outcome.status == OLD_PYTHON or (outcome.status == 2 and "nknown option" in said):
            needed = f"option 'python': {python!r} is too old; Python 3.9 or newer is needed"
            return HostFailed(f"{needed} ({words})", ran=ran)
        return HostFailed(f"the machine did not answer as it should: {words}", ran=ran)


def _directory(outcome: Outcome, nonce: str) -> str | None:
    """The directory in full, as the machine's shell has it."""
    found = re.search(
        rf"^@hostler-at {nonce} (/.*)$", outcome.stdout.decode("utf-8", "replace"), re.MULTILINE
    )
    return found[1] if found else None
