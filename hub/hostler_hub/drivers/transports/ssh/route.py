"""The logins on the way to a machine: jump hosts, outermost first, then the machine itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hostler_hub.drivers.transports.errors import NotConfigured
from hostler_hub.drivers.transports.ssh.access import Hop, SshAccess
from hostler_hub.drivers.transports.ssh.client_config import (
    ClientSettings,
    Destination,
    ask,
    plain,
)

MAX_LEGS = 16
_JUMP = re.compile(
    r"(?:(?P<user>.+)@)?(?P<host>\[[^]]+\]|[^:]+|[^\]]*:[^\]]*:.*)(?::(?P<port>\d+))?"
)


@dataclass(frozen=True)
class Leg:
    """One login. `hop` has the options for it; None if the ssh_config alone names the machine."""

    settings: ClientSettings
    hop: Hop | None = None

    @property
    def address(self) -> str:
        """The machine, for messages."""
        return self.settings.address


def legs(access: SshAccess, ssh_config: Path) -> list[Leg]:
    """The logins in their order. Asks OpenSSH's client if the options permit; then it blocks.
    Raises NotConfigured.
    """
    hops = (*access.jump, access.target)
    if not access.ssh_config:
        return [Leg(plain(hop.host, hop.user, hop.port), hop) for hop in hops]
    first, *others = hops
    found = _way(_destination(first), ssh_config, access.connect_timeout_s, ())
    found[-1] = Leg(found[-1].settings, first)
    for hop in others:  # the options say the way to these
        destination = _destination(hop, via="none")
        found.append(Leg(ask(ssh_config, destination, access.connect_timeout_s), hop))
    return found


def _destination(hop: Hop, via: str | None = None) -> Destination:
    if hop.user is not None and hop.user.endswith("$"):
        # A shell would take it for more, where `Match exec` or `ProxyCommand` says %r.
        raise NotConfigured(f"option 'user': {hop.user!r} cannot be used with 'ssh_config'")
    return Destination(hop.host, hop.user, hop.port, via)


def _way(
    destination: Destination, file: Path, deadline_s: float, inner: Sequence[Destination]
) -> list[Leg]:
    """The way to a destination, as the client makes it: through the last jump host, which is
    reached through those before it, or as the ssh_config says where it is the first.
    """
    if len(inner) >= MAX_LEGS or destination in inner:
        names = " < ".join(each.host for each in (*inner, destination)[:4])
        text = f"ssh_config: ProxyJump goes in a circle, or through more than {MAX_LEGS}: {names}"
        raise NotConfigured(text)
    settings = ask(file, destination, deadline_s)
    if not settings.jumps:
        return [Leg(settings)]
    *before, last = settings.jumps
    jump = _parsed(last, ",".join(before) or None)
    return [*_way(jump, file, deadline_s, (*inner, destination)), Leg(settings)]


def _parsed(text: str, via: str | None) -> Destination:
    found = _JUMP.fullmatch(text)
    if found is None:
        raise NotConfigured(f"ssh_config: ProxyJump {text!r}: not understood")
    port = int(found["port"]) if found["port"] else None
    return Destination(found["host"].strip("[]"), found["user"], port, via)
