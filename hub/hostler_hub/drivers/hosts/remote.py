"""The agent's `host` verb on another machine, by whatever transport: what all systems share.

Theory of operation. One command does everything: it looks for the agent of the wanted digest and
runs it, and that reads the request and answers in a frame (`hostler_agent.instances`). Only where
that digest is missing the archive is pushed and unpacked, once for all hubs and workers. What
looks for the agent is a few lines in a language that the machine has (`posix`, `windows`), and its
own answers are exit statuses that say for sure that the request was not carried out.
"""

from __future__ import annotations

import json
import re
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hostler_agent.instances import reply as replies
from hostler_hub.drivers.contract import AgentArchive
from hostler_hub.drivers.transports.contract import (
    Command,
    Outcome,
    Refused,
    Transport,
    TransportError,
)

PUSH_DEADLINE_S = 60.0
SAID_BYTES = 400

NO_AGENT, NO_PYTHON, OLD_PYTHON, NEVER_WAS, NO_DIRECTORY = 90, 91, 92, 93, 94


class HostFailed(Exception):
    """The text has the machine's words; `ran` is False when the request was surely not carried out,
    `kind` one of `hostler_agent.instances.errors`, or empty.
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


@dataclass(frozen=True, slots=True)
class Asked:
    """One act; `instance` is empty for those on none."""

    action: str
    instance: str
    content: bytes
    deadline_s: float
    sending: Callable[[], None] | None


class RemoteHost(ABC):
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
        content = json.dumps({"directory": self._site.directory, **request}).encode()
        instance = str(request.get("instance", ""))
        asked = Asked(action, instance, content, deadline_s, sending)
        outcome, nonce = await self._run(asked)
        if outcome.status == NO_AGENT and replies.find(nonce, outcome.stdout) is None:
            try:
                await self._push(_directory(outcome, nonce) or self._site.directory)
            except TransportError as error:
                error.sent = False  # what was asked for was surely not done
                raise
            outcome, nonce = await self._run(asked)
        return self._reply(outcome, nonce)

    async def end(self, instance: str, deadline_s: float) -> bool:
        """Whether it was never started, and from now on never will be, as far as that can be told
        without Python."""
        del instance, deadline_s
        return False

    async def never_was(self, instance: str, error: HostFailed, deadline_s: float) -> bool:
        """Whether the end failed because there never was anything to end."""
        del instance, error, deadline_s
        return False

    @abstractmethod
    def _calling(self, asked: Asked, nonce: str) -> tuple[list[str], bytes]:
        """(command, what its standard input begins with) that hands the rest to the agent."""

    @abstractmethod
    def _installing(self, archive: str, nonce: str) -> tuple[list[str], bytes]:
        """The same, for an archive that was just put beside the agents, to install itself."""

    @abstractmethod
    def _unanswered(self, outcome: Outcome, nonce: str) -> HostFailed:
        """What it means that a command ended without a reply."""

    @abstractmethod
    def _path(self, directory: str, *names: str) -> str:
        """Of a file on the machine."""

    async def _push(self, directory: str) -> None:
        """To a name of its own, checked by its digest and unpacked there, then renamed."""
        nonce = secrets.token_hex(8)
        name = f".push-{nonce}.pyz"
        await self._put(directory, name, self._archive.path.read_bytes())
        request = {"directory": self._site.directory, "sha256": self._archive.sha256}
        argv, head = self._installing(name, nonce)
        command = Command(argv, head + json.dumps(request).encode(), PUSH_DEADLINE_S)
        try:
            self._reply(await self._transport.run(command), nonce)
        except HostFailed as error:
            raise HostFailed(str(error), kind=error.kind, ran=False) from error

    async def _put(self, directory: str, name: str, content: bytes) -> None:
        path = self._path(directory, "agents", name)
        try:
            await self._transport.put(path, content, PUSH_DEADLINE_S)
        except Refused as error:
            refusal = await self._why_not_put(directory, len(content))
            if refusal is None:
                raise
            raise refusal from error

    async def _why_not_put(self, directory: str, size_bytes: int) -> HostFailed | None:
        """The machine's own words, where the transport has none for what it refuses."""
        del directory, size_bytes
        return None

    async def _run(self, asked: Asked) -> tuple[Outcome, str]:
        nonce = secrets.token_hex(8)
        argv, head = self._calling(asked, nonce)
        command = Command(argv, head + asked.content, asked.deadline_s, sending=asked.sending)
        return await self._transport.run(command), nonce

    def _reply(self, outcome: Outcome, nonce: str) -> dict[str, Any]:
        reply = replies.find(nonce, outcome.stdout)
        if reply is None:
            raise self._unanswered(outcome, nonce)
        error = reply.get("error")
        if isinstance(error, dict):
            raise HostFailed(str(error.get("text")), kind=str(error.get("kind")))
        return reply


def said(outcome: Outcome) -> str:
    """Its last words."""
    text = (outcome.stderr or outcome.stdout).decode("utf-8", "replace").strip()
    return text[-SAID_BYTES:]


def too_old(python: str, words: str, *, ran: bool) -> HostFailed:
    """Whatever the system."""
    text = f"option 'python': {python!r} is too old; Python 3.9 or newer is needed ({words})"
    return HostFailed(text, ran=ran)


def _directory(outcome: Outcome, nonce: str) -> str | None:
    """The directory in full, as the machine has it."""
    found = re.search(
        rf"^@hostler-at {nonce} (.*?)\r?$",
        outcome.stdout.decode("utf-8", "replace"),
        re.MULTILINE,
    )
    return found[1] if found else None
