"""How to reach a machine by WinRM: address, user, references to credentials, trusted
certificates.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from hostler_hub.drivers.transports.ssh.access import Host, Port
from hostler_hub.runtime.secrets import SecretRef

HTTP_PORT, HTTPS_PORT = 5985, 5986

# NAME, DOMAIN\NAME, .\NAME or NAME@REALM; a colon would end the name in basic authentication.
WINDOWS_USER = r"^[A-Za-z0-9_.][A-Za-z0-9_. @$+\\-]{0,126}$"
# SHA-256, as openssl prints it or without colons.
FINGERPRINT = r"^[0-9A-Fa-f]{2}(:?[0-9A-Fa-f]{2}){31}$"
# A name or a path with nothing in it that cmd.exe would take for more.
PYTHON = r"^[A-Za-z0-9_.][A-Za-z0-9_. ()/\\:+-]{0,254}$"

WindowsUser = Annotated[str, Field(pattern=WINDOWS_USER)]
Fingerprint = Annotated[str, Field(pattern=FINGERPRINT)]
WindowsPython = Annotated[str, Field(pattern=PYTHON)]
Auth = Literal["ntlm", "kerberos", "basic"]


class WinrmAccess(BaseModel):
    """One machine as one user.

    With `tls`, the machine's certificate must have `fingerprint`, or be issued by `ca` (PEM; by
    default the system's authorities), or both if both are given. Without `tls`, every message is
    encrypted with the key that NTLM or Kerberos has negotiated.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    host: Host
    port: Port | None = None
    user: WindowsUser
    password: SecretRef | None = None
    auth: Auth = "ntlm"
    tls: bool = True
    fingerprint: Fingerprint | None = None
    ca: SecretRef | None = None
    connect_timeout_s: float = 10.0
    python: WindowsPython = "python"

    @property
    def address(self) -> str:
        """The address, for messages and as a key: equal addresses mean the same machine
        and user.
        """
        return f"{self.user}@{self.host}:{self.listener}"

    @property
    def listener(self) -> int:
        """The port that WinRM listens on."""
        return self.port or (HTTPS_PORT if self.tls else HTTP_PORT)

    @property
    def endpoint(self) -> str:
        """The URL of the WinRM service."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.listener}/wsman"
