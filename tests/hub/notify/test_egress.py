"""Which addresses may be called (U10: SSRF)."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

import pytest

from hostler_hub.notify.egress import Egress, is_public
from hostler_hub.notify.errors import EgressForbidden


def resolving(*addresses: str) -> Egress:
    async def resolve(_host: str, _port: int) -> Sequence[str]:
        return addresses

    return Egress((), resolve)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "192.0.2.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "fd00:ec2::254",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "2001:db8::1",
    ],
)
async def test_SSRF_what_is_not_on_the_internet_is_forbidden(address: str) -> None:
    with pytest.raises(EgressForbidden):
        await resolving(address).addresses("h", 443)


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.215.14", "2606:4700::1111"])
async def test_what_is_on_the_internet_is_not(address: str) -> None:
    assert await resolving(address).addresses("h", 443) == [address]
    assert is_public(ipaddress.ip_address(address))


async def test_SSRF_one_forbidden_address_among_others_is_enough() -> None:
    with pytest.raises(EgressForbidden):
        await resolving("1.1.1.1", "169.254.169.254").addresses("h", 443)


@pytest.mark.parametrize("allow", ["10.1.0.0/16", "10.1.2.3", "intra.example.org"])
async def test_a_private_place_can_be_allowed(allow: str) -> None:
    async def resolve(_host: str, _port: int) -> Sequence[str]:
        return ["10.1.2.3"]

    egress = Egress((allow,), resolve)
    assert await egress.addresses("intra.example.org", 443) == ["10.1.2.3"]


async def test_an_allowed_network_allows_no_other() -> None:
    async def resolve(_host: str, _port: int) -> Sequence[str]:
        return ["169.254.169.254"]

    with pytest.raises(EgressForbidden):
        await Egress(("10.0.0.0/8", "other.example.org"), resolve).addresses("h", 443)


async def test_the_system_resolves_by_default() -> None:
    assert await Egress(("localhost",)).addresses("localhost", 443) != []
