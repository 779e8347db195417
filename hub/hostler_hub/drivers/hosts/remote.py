"""Calls the agent's verb `host` on another machine, through any transport. Base of `posix` and
`windows`.

Theory of operation. One command does everything: it looks for the agent with the wanted digest and
runs it; the agent reads the request from standard input and writes a framed reply
(`hostler_agent.instances`). If the machine has no agent of that digest, the archive is pushed and
unpacked, once for all hubs and workers. The script that looks for the agent is written in a
language that the machine has (`posix`, `windows`). Its own failures are exit statuses which say
with certainty that the request was not carried out.
"""

from __future__ import annotations

import json
import re
import secrets
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hostler_agent.instances import reply as replies
from hostler_hub.drivers.contract import AgentArchive
from hostler_hub.drivers.errors import HostFailed
from hostler_hub.drivers.hosts.host import Host, Site, checked
from hostler_hub.drivers.transports.contract import Command, CommandResult, Transport
from hostler_hub.drivers.transports.errors import TransportError

PUSH_DEADLINE_S = 60.0
SAID_BYTES = 400

NO_AGENT, NO_PYTHON, OLD_PYTHON, NEVER_WAS, NO_DIRECTORY = 90, 91, 92, 93, 94


@dataclass(frozen=True, slots=True)
class Request:
    """One action to carry out on a machine. `instance` is empty if the action concerns none."""

    action: str
    instance: str
    content: bytes
    deadline_s: float
    sending: Callable[[], None] | None


class RemoteHost(Host):
    """A machine behind a transport. All methods raise HostFailed and TransportError."""

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
    ) -> Mapping[str, Any]:
        """Send the request and return the reply. Pushes the agent first if the machine does not
        have this version.
        """
        content = json.dumps({"directory": self._site.directory, **request}).encode()
        instance = str(request.get("instance", ""))
        sent = Request(action, instance, content, deadline_s, sending)
        outcome, nonce = await self._run(sent)
        if outcome.status == NO_AGENT and replies.find(nonce, outcome.stdout) is None:
            try:
                await self._push(_directory(outcome, nonce) or self._site.directory)
            except TransportError as error:
                error.sent = False  # the request itself was surely not carried out
                raise
            outcome, nonce = await self._run(sent)
        return self._reply(outcome, nonce)

    @abstractmethod
    def _call_command(self, request: Request, nonce: str) -> tuple[list[str], bytes]:
        """The command that finds the agent and runs it, and the beginning of its standard input."""

    @abstractmethod
    def _install_command(self, archive: str, nonce: str) -> tuple[list[str], bytes]:
        """The command that runs the pushed archive `archive` to install itself, and the beginning
        of its standard input.
        """

    @abstractmethod
    def _no_reply(self, outcome: CommandResult, nonce: str) -> HostFailed:
        """The exception for a command that ended without a reply."""

    @abstractmethod
    def _path(self, directory: str, *names: str) -> str:
        """The path of a file below a directory of the machine, in the machine's syntax."""

    async def _push(self, directory: str) -> None:
        """Write the agent's archive to the machine, and run it to check and install itself."""
        nonce = secrets.token_hex(8)
        name = f".push-{nonce}.pyz"
        await self._put(directory, name, self._archive.path.read_bytes())
        request = {"directory": self._site.directory, "sha256": self._archive.sha256}
        argv, head = self._install_command(name, nonce)
        command = Command(argv, head + json.dumps(request).encode(), PUSH_DEADLINE_S)
        try:
            self._reply(await self._transport.run(command), nonce)
        except HostFailed as error:
            raise HostFailed(str(error), kind=error.kind, ran=False) from error

    async def _put(self, directory: str, name: str, content: bytes) -> None:
        path = self._path(directory, "agents", name)
        await self._transport.put(path, content, PUSH_DEADLINE_S)

    async def _run(self, request: Request) -> tuple[CommandResult, str]:
        nonce = secrets.token_hex(8)
        argv, head = self._call_command(request, nonce)
        command = Command(argv, head + request.content, request.deadline_s, sending=request.sending)
        return await self._transport.run(command), nonce

    def _reply(self, outcome: CommandResult, nonce: str) -> Mapping[str, Any]:
        reply = replies.find(nonce, outcome.stdout)
        if reply is None:
            raise self._no_reply(outcome, nonce)
        return checked(reply)


def last_output(outcome: CommandResult) -> str:
    """The end of a command's standard error, or of its standard output if standard error
    is empty.
    """
    text = (outcome.stderr or outcome.stdout).decode("utf-8", "replace").strip()
    return text[-SAID_BYTES:]


def too_old(python: str, words: str, *, ran: bool) -> HostFailed:
    """The exception for a Python that is too old for the agent; `words` is the machine's
    message.
    """
    text = f"option 'python': {python!r} is too old; Python 3.9 or newer is needed ({words})"
    return HostFailed(text, ran=ran)


def _directory(outcome: CommandResult, nonce: str) -> str | None:
    """The absolute path of the agents' directory, which the script prints when the agent is
    missing.
    """
    found = re.search(
        rf"^@hostler-at {nonce} (.*?)\r?$",
        outcome.stdout.decode("utf-8", "replace"),
        re.MULTILINE,
    )
    return found[1] if found else None
