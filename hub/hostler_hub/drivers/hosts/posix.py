"""The agent's `host` verb on a machine with a POSIX shell and Python."""

from __future__ import annotations

from hostler_agent.instances import errors as host_errors
from hostler_hub.drivers.errors import HostFailed
from hostler_hub.drivers.hosts.remote import (
    NEVER_WAS,
    NO_AGENT,
    NO_DIRECTORY,
    NO_PYTHON,
    OLD_PYTHON,
    SAID_BYTES,
    RemoteHost,
    Request,
    last_output,
    too_old,
)
from hostler_hub.drivers.transports.contract import Command, CommandResult
from hostler_hub.drivers.transports.errors import NotWritten

# Exit statuses of a shell or Python that did not run the agent: nothing was carried out.
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
t=$d/instances/.$2.$$; printf gone >"$t" 2>/dev/null || { rm -f "$t"; exit 1; }
ln "$t" "$d/instances/$2.lock" 2>/dev/null && { rm -f "$t"; exit 93; }
rm -f "$t"
"""
_FULL = ("No space left on device", "Disk quota exceeded")


class PosixHost(RemoteHost):
    """A machine with a POSIX shell. All methods raise HostFailed and TransportError."""

    async def end_unstarted(self, instance: str, deadline_s: float) -> bool:
        argv = ["/bin/sh", "-c", _END, "hostler", self._site.directory, instance]
        outcome = await self._transport.run(Command(argv, deadline_s=deadline_s))
        return outcome.status == NEVER_WAS

    async def _put(self, directory: str, name: str, content: bytes) -> None:
        try:
            await super()._put(directory, name, content)
        except NotWritten as error:
            kind = host_errors.DISK_FULL if any(each in error.words for each in _FULL) else ""
            text = f"cannot write the agent ({len(content)} bytes) into {directory}: {error.words}"
            raise HostFailed(text, kind=kind, ran=False) from error

    def _call_command(self, request: Request, nonce: str) -> tuple[list[str], bytes]:
        return self._argv(_CALL, self._archive.sha256, request.action, nonce), b""

    def _install_command(self, archive: str, nonce: str) -> tuple[list[str], bytes]:
        return self._argv(_INSTALL, archive, "install", nonce), b""

    def _argv(self, script: str, agent: str, action: str, nonce: str) -> list[str]:
        where = [self._site.directory, agent, self._site.python]
        return ["/bin/sh", "-c", script, "hostler", *where, action, "--reply", nonce]

    def _path(self, directory: str, *names: str) -> str:
        return "/".join((directory, *names))

    def _no_reply(self, outcome: CommandResult, nonce: str) -> HostFailed:
        del nonce
        ran = outcome.status not in _NOT_RUN
        python = self._site.python
        if outcome.status == NO_PYTHON:
            text = f"option 'python': there is no {python!r} there"
            return HostFailed(f"{text}; install Python 3.9 or newer, or name its path", ran=ran)
        if outcome.status == NO_DIRECTORY:
            why = outcome.stderr.decode("utf-8", "replace").strip()[-SAID_BYTES:]
            return HostFailed(f"option 'directory': {why}", ran=ran)
        why = last_output(outcome)
        words = f"exit status {outcome.status}" + (f": {why}" if why else "")
        if outcome.status == OLD_PYTHON or (outcome.status == 2 and "nknown option" in why):
            return too_old(python, words, ran=ran)
        return HostFailed(f"the machine did not answer as it should: {words}", ran=ran)
