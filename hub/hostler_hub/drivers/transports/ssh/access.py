"""How to reach a machine by SSH: address, user, references to credentials, host key."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from hostler_hub.runtime.secrets import SecretRef

# No leading hyphen (an option, to whatever gets it as an argument) and nothing a shell or an
# ssh_config's ProxyCommand could take for more than a name: CVE-2023-51385, CVE-2025-61984.
HOST = r"^[A-Za-z0-9_:]([A-Za-z0-9_.:-]{0,252}[A-Za-z0-9_.:])?$"
USER = r"^[A-Za-z0-9_]([A-Za-z0-9_.@+-]{0,62}[A-Za-z0-9_$])?$"
HOST_KEY = r"^[a-z0-9@.-]{4,64} [A-Za-z0-9+/]{16,4096}={0,2}$"

Host = Annotated[str, Field(pattern=HOST)]
User = Annotated[str, Field(pattern=USER)]
Port = Annotated[int, Field(ge=1, le=65535)]
HostKey = Annotated[str, Field(pattern=HOST_KEY)]


class Hop(BaseModel):
    """A machine to log in to. `host_key` is the content of its .pub file. Without it the machine's
    key must be in the hub's known_hosts, or `accept_new` must permit accepting it at the first
    contact.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    host: Host
    port: Port | None = None
    user: User | None = None
    key: SecretRef | None = None
    passphrase: SecretRef | None = None
    password: SecretRef | None = None
    host_key: HostKey | None = None
    accept_new: bool = False

    @property
    def address(self) -> str:
        """The address, for messages and as a key: equal addresses mean the same machine."""
        user = f"{self.user}@" if self.user else ""
        return f"{user}{self.host}:{self.port}" if self.port else f"{user}{self.host}"


class SshAccess(BaseModel):
    """The machine, and the jump hosts on the way to it, outermost first.

    With `ssh_config`, the hub's own ssh_config, known_hosts, key files and agent are used as well.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    target: Hop
    jump: tuple[Hop, ...] = ()
    ssh_config: bool = False
    connect_timeout_s: float = 10.0
