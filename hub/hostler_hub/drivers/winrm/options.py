"""Options of a WinRM worker: the machine, the login, and the agent's directory and Python."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from hostler_hub.drivers.hosts.host import Site
from hostler_hub.drivers.hosts.options import HostOptions
from hostler_hub.drivers.transports.ssh.access import Host, Port
from hostler_hub.drivers.transports.winrm.access import (
    Auth,
    Fingerprint,
    WindowsPython,
    WindowsUser,
    WinrmAccess,
)
from hostler_hub.runtime.secrets import SecretRef

# In the user's profile, or on a drive; nothing that cmd.exe would take for more than a name.
DIRECTORY = r"^(~|[A-Za-z]:)[/\\][A-Za-z0-9_.@ +()/\\-]{1,200}$"
VARIABLE = r"^[A-Za-z_][A-Za-z0-9_()]*$"

Directory = Annotated[str, Field(pattern=DIRECTORY)]
Variable = Annotated[str, Field(pattern=VARIABLE)]

# What it takes to find and to end an instance again, when the definition is gone.
_HANDLE_OPTIONS = frozenset(
    {
        *("host", "port", "user", "password", "auth", "tls", "fingerprint", "ca"),
        *("connect_timeout_s", "python", "directory"),
    }
)


class WinrmOptions(HostOptions):
    """Options of a WinRM worker."""

    host: Host
    port: Port | None = None
    user: WindowsUser
    password: SecretRef | None = None
    auth: Auth = "ntlm"
    tls: bool = True
    fingerprint: Fingerprint | None = None
    ca: SecretRef | None = None
    connect_timeout_s: Annotated[float, Field(gt=0, le=120)] = 10.0

    python: WindowsPython = "python"
    directory: Directory = "~\\.hostler"
    start: Literal["task", "service", "detached"] = "task"
    environment: Mapping[Variable, str] = {}
    containment: Literal["auto"] = "auto"
    orphan_timeout_s: Annotated[int, Field(ge=60)] = 1800

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.auth == "basic" and not self.tls:
            raise ValueError("auth: basic would send the password in the clear; it needs tls")
        if self.auth != "kerberos" and self.password is None:
            raise ValueError(f"password: auth {self.auth} needs one")
        if not self.tls and (self.fingerprint or self.ca):
            raise ValueError("fingerprint and ca are for tls")
        return self

    @property
    def place(self) -> str:
        """The machine and its directory. Password and certificate are not part of it, so that they
        may be corrected.
        """
        return f"{self.host}:{self.port or ''} {self.directory}"

    @property
    def failure_domains(self) -> tuple[str]:
        """The machine."""
        return (f"host {self.host}:{self.access.listener}",)

    @property
    def address(self) -> str:
        """The machine's address, for people."""
        return self.access.address

    @property
    def access(self) -> WinrmAccess:
        """How the machine is reached."""
        return WinrmAccess(**{name: getattr(self, name) for name in WinrmAccess.model_fields})

    @property
    def site(self) -> Site:
        """The directory on the machine that holds the instances, and the Python of the agents."""
        return Site(self.directory, self.python)

    @property
    def owner(self) -> str | None:
        """The user who logs in and owns the agents' processes."""
        return self.user

    def handle_options(self) -> dict[str, Any]:
        """The options that a handle stores; see the base class."""
        return self.model_dump(mode="json", include=set(_HANDLE_OPTIONS), exclude_defaults=True)

    def agent_config(self) -> dict[str, Any]:
        """The options that go into the agent's configuration."""
        return {"orphan_timeout_s": self.orphan_timeout_s}

    def start_request(self) -> dict[str, Any]:
        """The options that go into the request that starts an agent."""
        return {"way": self.start}
