"""What OpenSSH's client would do to reach a machine: it is asked itself (`ssh -G`).

Only the client knows for certain what an ssh_config means: Include, Match, patterns, canonical
names, defaults. So nothing of that is evaluated here. What it leaves to be expanded (tokens,
environment variables, ~) is expanded here. Only the file that is named is read, not the user's nor
the system's own. `Match exec` runs in the client, with the rights of the hub's user; names of
machines and users that a definition gives have no characters that a shell would take for more.
"""

from __future__ import annotations

import os
import pwd
import re
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from hostler_hub.drivers.transports.errors import NotConfigured
from hostler_hub.drivers.transports.ssh.known_hosts import SSH_PORT, name_of

CLIENT = "ssh"
_SAID_BYTES = 400
_NO = ("", "no", "none", "false", "off")
# What the client can do on the way in and we cannot; without it the machine may be unreachable.
_IN_THE_WAY = ("proxyusefdpass", "revokedhostkeys", "remotecommand")
# What can make the client believe a host key, or the server a user, that we cannot.
TRUST = ("verifyhostkeydns", "knownhostscommand", "nohostauthenticationforlocalhost")
AUTHENTICATION = ("gssapiauthentication", "hostbasedauthentication", "pkcs11provider")


@dataclass(frozen=True, slots=True)
class Destination:
    """A machine as it is named: an alias of the ssh_config or a host, with what overrides the file.

    `via` overrides ProxyJump; "none" means no jump host.
    """

    host: str
    user: str | None = None
    port: int | None = None
    via: str | None = None


@dataclass(frozen=True)
class ClientSettings:
    """The client's settings for one machine. `values` has each keyword in lower case with the
    values that `ssh -G` prints for it, one for each line. Without `is_asked` they are only what
    the options say, and nothing of the hub's user is used.
    """

    alias: str
    values: Mapping[str, Sequence[str]]
    is_asked: bool = True

    @property
    def hostname(self) -> str:
        """Where to connect to, resolved by the system if it is a name."""
        return self.text("hostname") or self.alias

    @property
    def port(self) -> int:
        """The port of its sshd."""
        return int(self.text("port") or SSH_PORT)

    @cached_property
    def user(self) -> str:
        """Who logs in."""
        return self.text("user") or _account().pw_name

    @property
    def address(self) -> str:
        """The machine, for messages."""
        return f"{self.user}@{self.hostname}:{self.port}"

    @property
    def host_key_names(self) -> tuple[str, ...]:
        """The names in known_hosts, the first of which counts where it has a key."""
        alias = self.text("hostkeyalias")
        if alias:
            return (alias,)
        return tuple(dict.fromkeys((name_of(self.hostname, self.port), self.hostname)))

    @property
    def accepts_new(self) -> bool:
        """Whether StrictHostKeyChecking permits accepting an unknown key."""
        values = self.values.get("stricthostkeychecking", ["ask"])
        return values[0] in ("accept-new", "false", "no", "off")

    @property
    def jumps(self) -> list[str]:
        """The jump hosts, outermost first."""
        return [each for each in self.text("proxyjump").split(",") if each]

    @property
    def proxy_command(self) -> str:
        """The command whose standard input and output lead to the machine; empty without one."""
        return "" if self.jumps else self._expand(self.text("proxycommand"))

    @property
    def known_hosts(self) -> list[Path]:
        """The known_hosts files, the user's before the system's."""
        names = (
            name
            for keyword in ("userknownhostsfile", "globalknownhostsfile")
            for name in _split_paths(self.text(keyword))
        )
        return [self._path(name) for name in names]

    def paths(self, keyword: str) -> list[Path]:
        """The files that a keyword names, which may occur several times."""
        found = (each for each in self.values.get(keyword, ()) if each.lower() != "none")
        return [self._path(each) for each in found]

    @property
    def agent(self) -> Path | None:
        """The socket of the user's ssh-agent; None if it must not be asked, or there is none."""
        given = self.text("identityagent", "SSH_AUTH_SOCK") if self.is_asked else ""
        if given == "SSH_AUTH_SOCK" or given.startswith("$"):
            given = os.environ.get(given.removeprefix("$").strip("{}"), "")
        return self._path(given) if given else None

    def algorithms(self, keyword: str) -> list[str]:
        """The algorithms that a keyword permits, best first; empty if it permits all."""
        return [each for each in self.text(keyword).split(",") if each]

    def flag(self, keyword: str, default: bool) -> bool:
        """Whether a keyword is switched on."""
        return self.text(keyword, "yes" if default else "no") not in _NO

    def set_of(self, keywords: Sequence[str]) -> list[str]:
        """Those of the keywords that are set to something."""
        return [each for each in keywords if self.text(each)]

    def text(self, keyword: str, default: str = "") -> str:
        """The value of a keyword; empty if it is `none` or switched off."""
        value = next(iter(self.values.get(keyword, ())), default)
        return "" if value.lower() in _NO else value

    def _path(self, text: str) -> Path:
        text = re.sub(r"\$\{(\w+)\}", self._variable, self._expand(text))
        home = _account().pw_dir
        return Path(home, text[2:]) if text.startswith("~/") else Path(text)

    def _variable(self, found: re.Match[str]) -> str:
        try:
            return os.environ[found[1]]
        except KeyError:
            text = f"ssh_config: {self.alias}: the hub has no environment variable {found[1]}"
            raise NotConfigured(text) from None

    def _expand(self, text: str) -> str:
        """Expand tokens; see ssh_config(5), TOKENS. Raises NotConfigured."""
        return re.sub(r"%(.?)", self._token, text)

    def _token(self, found: re.Match[str]) -> str:
        local = socket.gethostname()
        known = {
            "%": "%",
            "d": _account().pw_dir,
            "h": self.hostname,
            "i": str(os.getuid()),
            "k": self.text("hostkeyalias") or self.alias,
            "L": local.partition(".")[0],
            "l": local,
            "n": self.alias,
            "p": str(self.port),
            "r": self.user,
            "u": _account().pw_name,
        }
        try:
            return known[found[1]]
        except KeyError:
            text = f"ssh_config: {self.alias}: token {found[0]!r} is not supported here"
            raise NotConfigured(text) from None


def plain(host: str, user: str | None, port: int | None) -> ClientSettings:
    """The settings for a machine that no ssh_config is asked about."""
    given = {"hostname": host, "user": user, "port": None if port is None else str(port)}
    values = {name: [value] for name, value in given.items() if value}
    return ClientSettings(host, values, is_asked=False)


def ask(file: Path, destination: Destination, deadline_s: float) -> ClientSettings:
    """Ask the client for its settings. Blocks. Raises NotConfigured, also for what stands in the
    way and is not supported.
    """
    values = _values(_run(_arguments(file, destination), destination.host, deadline_s))
    found = ClientSettings(destination.host, values)
    obstacles = found.set_of(_IN_THE_WAY)
    if obstacles:
        words = ", ".join(obstacles)
        raise NotConfigured(f"ssh_config: {destination.host}: {words}: not supported here")
    if not found.port:
        raise NotConfigured(f"ssh_config: {destination.host}: port {found.port}")
    return found


def environment() -> dict[str, str]:
    """The environment of programs that the ssh_config names: the hub's own without its secrets."""
    return {name: value for name, value in os.environ.items() if not name.startswith("HOSTLER_")}


def _arguments(file: Path, destination: Destination) -> list[str]:
    options = []
    if destination.user is not None:
        options += ["-l", destination.user]
    if destination.port is not None:
        options += ["-p", str(destination.port)]
    if destination.via is not None:
        options += ["-o", f"ProxyJump={destination.via}"]
    where = str(file) if file.exists() else "none"
    return [CLIENT, "-G", "-F", where, *options, "--", destination.host]


def _run(arguments: Sequence[str], host: str, deadline_s: float) -> str:
    try:
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
            start_new_session=True,  # so that what `Match exec` started ends with it
        )
    except FileNotFoundError:
        text = "option 'ssh_config': the hub's machine has no OpenSSH client (openssh-client)"
        raise NotConfigured(text) from None
    except OSError as error:
        raise NotConfigured(f"option 'ssh_config': {CLIENT}: {error.strerror}") from error
    try:
        stdout, stderr = process.communicate(timeout=deadline_s)
    except subprocess.TimeoutExpired:
        text = f"ssh_config: {host}: not evaluated within {deadline_s:g} s (see its Match exec)"
        raise NotConfigured(text) from None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
    if process.returncode:
        words = stderr.decode("utf-8", "replace").strip()[-_SAID_BYTES:]
        raise NotConfigured(f"ssh_config: {host}: {words or process.returncode}")
    return stdout.decode("utf-8", "surrogateescape")


def _values(printed: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in printed.splitlines():
        keyword, _, value = line.partition(" ")
        found.setdefault(keyword.lower(), []).append(value)
    return found


def _split_paths(text: str) -> list[str]:
    """Split the paths of a keyword. The client prints a path with a space without its quotes; the
    paths themselves are absolute or begin with a tilde.
    """
    return re.findall(r"\S.*?(?=\s+[/~]|$)", text)


def _account() -> pwd.struct_passwd:
    return pwd.getpwuid(os.getuid())
