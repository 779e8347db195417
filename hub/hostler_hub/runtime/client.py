"""The client behind a connection, as limits count it."""

from __future__ import annotations

import ipaddress

# Whoever has an IPv6 address has a network of this size, and may use all its addresses.
_IPV6_PREFIX = 64

# The clients of a Unix socket have no address.
THIS_MACHINE = "this machine"


def client_of(host: str) -> str:
    """The client with the peer address ``host``: an IPv4 address, or an IPv6 network.

    The address is that of the connection itself: `X-Forwarded-For`, which anybody may write, counts
    for nothing, so all clients behind a proxy are one.
    """
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host or THIS_MACHINE
    if isinstance(address, ipaddress.IPv4Address):
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, _IPV6_PREFIX), strict=False))
