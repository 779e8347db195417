"""Options of an SSH worker: the machine, the login, and the agent's directory and Python."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from hostler_hub.drivers.hosts.host import Site
from hostler_hub.drivers.hosts.options import HostOptions
from hostler_hub.drivers.hosts.wake_on_lan import WakeOptions
from hostler_hub.drivers.transports.ssh.access import Hop, Host, HostKey, Port, SshAccess, User
from hostler_hub.runtime.secrets import SecretRef

Python = Annotated[str, Field(pattern=r"^[A-Za-z0-9_./][A-Za-z0-9_./+-]{0,254}$")]
Directory = Annotated[str, Field(pattern=r"^(~/|/)[A-Za-z0-9_.@+/-]{1,200}$")]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]

# What it takes to find and to end an instance again, when the definition is gone.
_HANDLE_OPTIONS = frozenset(
    {
        *("host", "port", "user", "key", "passphrase", "password", "host_key", "accept_new"),
        *("jump", "ssh_config", "connect_timeout_s", "python", "directory", "containment"),
    }
)


class SshOptions(HostOptions):
    """Options of an SSH worker."""

    host: Host
    port: Port | None = None
    user: User | None = None
    key: SecretRef | None = None
    passphrase: SecretRef | None = None
    password: SecretRef | None = None
    host_key: HostKey | None = None
    accept_new: bool = False
    jump: Annotated[tuple[Hop, ...], Field(strict=False, max_length=8)] = ()
    ssh_config: bool = False
    connect_timeout_s: Annotated[float, Field(gt=0, le=120)] = 10.0

    python: Python = "python3"
    directory: Directory = "~/.hostler"
    containment: Literal["auto", "cgroup2", "cgroup1", "subreaper"] = "auto"
    environment: Mapping[Variable, str] = {}

    tunnel: bool = False  # the agent reaches the hub through this very connection
    wake: WakeOptions | None = None

    @property
    def place(self) -> str:
        """The machine and its directory. User and key are not part of it, so that they may be
        corrected.
        """
        way = [hop.address for hop in self.jump]
        return " ".join([*way, f"{self.host}:{self.port or ''}", self.directory])

    @property
    def failure_domains(self) -> tuple[str, ...]:
        """The machine, and the last machine on the way to it."""
        hosts = [f"host {self.host}:{self.port or 22}"]
        return (*hosts, f"jump host {self.jump[-1].address}") if self.jump else tuple(hosts)

    @property
    def access(self) -> SshAccess:
        """How the machine is reached."""
        hop = {name: getattr(self, name) for name in Hop.model_fields}
        return SshAccess(
            target=Hop(**hop),
            jump=self.jump,
            ssh_config=self.ssh_config,
            connect_timeout_s=self.connect_timeout_s,
        )

    @property
    def address(self) -> str:
        """The machine's address, for people."""
        return self.access.target.address

    @property
    def site(self) -> Site:
        """The directory on the machine that holds the instances, and the Python of the agents."""
        return Site(self.directory, self.python)

    @property
    def owner(self) -> str | None:
        """The user who logs in and owns the agents' processes; None if the option is absent."""
        return self.user

    def handle_options(self) -> dict[str, Any]:
        """The options that a handle stores; see the base class."""
        return self.model_dump(mode="json", include=set(_HANDLE_OPTIONS), exclude_defaults=True)
