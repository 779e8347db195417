"""Which addresses are one client."""

from __future__ import annotations

import pytest

from hostler_hub.runtime.client import client_of


@pytest.mark.parametrize(
    ("host", "client"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
        ("2001:db8:0:1:ffff::2", "2001:db8:0:1::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", "this machine"),
        ("testclient", "testclient"),
    ],
)
def test_client_of(host: str, client: str) -> None:
    assert client_of(host) == client
