"""Which addresses the hub may call, so that a webhook's URL cannot reach private services (SSRF).

A webhook's host is resolved once, each of its addresses is checked against the rules, and the
connection goes to a checked address. The name is not resolved again, as it may lead elsewhere by
then.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence

from hostler_hub.notify.errors import EgressForbidden

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

# They carry an IPv4 address inside, or lead through a relay: no server needs them.
_TRANSLATED = tuple(
    ipaddress.ip_network(each)
    for each in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")
)


class Egress:
    """The rules for outgoing calls. ``allow``: hosts and networks that may be called although they
    are private.
    """

    def __init__(self, allow: Sequence[str], resolve: Resolve | None = None) -> None:
        networks = [(each, _network(each)) for each in allow]
        self._hosts = {each.lower() for each, network in networks if network is None}
        self._networks = [network for _, network in networks if network is not None]
        self._resolve = resolve or _system

    async def addresses(self, host: str, port: int) -> list[str]:
        """Resolve a host to its addresses. Raises EgressForbidden if any of them is forbidden,
        OSError if resolving fails.

        One forbidden address refuses the host: a name with public and private addresses is an
        attack.
        """
        found = list(dict.fromkeys(await self._resolve(host, port)))
        if host.lower() not in self._hosts:
            for address in found:
                self._check(host, address)
        return found

    def _check(self, host: str, address: str) -> None:
        ip = ipaddress.ip_address(address.partition("%")[0])
        if any(ip in network for network in self._networks) or is_public(ip):
            return
        raise EgressForbidden(
            f"{host} leads to {ip}, which is not public; allow it by notify_webhook_allow"
        )


def is_public(ip: IPAddress) -> bool:
    """Whether the address is a public unicast address."""
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return is_public(ip.ipv4_mapped)
        if any(ip in network for network in _TRANSLATED):
            return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


async def _system(host: str, port: int) -> Sequence[str]:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(each[4][0]) for each in found]
