"""Which real peers a test needs: what its marks say, and what the fixtures that it uses say."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pytest

_ATTRIBUTE = "starts_peer"
_Function = TypeVar("_Function", bound=Callable[..., object])


def needs(peer: str) -> Callable[[_Function], _Function]:
    """Declare that a fixture starts a real peer; stands below `@pytest.fixture`.

    Every test that uses the fixture, directly or through others, is marked `peer(<peer>)`. A test
    that asks for it by `request.getfixturevalue` is not seen at collection and needs the mark.
    """

    def declare(function: _Function) -> _Function:
        setattr(function, _ATTRIBUTE, peer)
        return function

    return declare


def _declared(fixture: pytest.FixtureDef[object]) -> str:
    """The peer that a fixture declares, or ""."""
    peer: str = getattr(fixture.func, _ATTRIBUTE, "")
    return peer


def peers_of(item: pytest.Item) -> list[str]:
    """The names of the peers that a test is marked with, sorted."""
    return sorted({marker.args[0] for marker in item.iter_markers("peer")})


def fixtures_of(item: pytest.Item) -> list[pytest.FixtureDef[object]]:
    """All fixtures that a test uses, directly or through others."""
    info = getattr(item, "_fixtureinfo", None)
    if info is None:  # not a Python function
        return []
    definitions = info.name2fixturedefs
    return [definitions[name][-1] for name in info.names_closure if name in definitions]


def mark(item: pytest.Item) -> None:
    """Give a test the mark `peer` for each peer that its fixtures declare and it does not have."""
    found = {_declared(fixture) for fixture in fixtures_of(item)}
    for name in sorted(found - {"", *peers_of(item)}):
        item.add_marker(pytest.mark.peer(name))


def check(fixture: pytest.FixtureDef[object], request: pytest.FixtureRequest) -> None:
    """Fail the test where a peer is started for one that is not marked with it."""
    name, item = _declared(fixture), request._pyfuncitem
    if name and name not in peers_of(item):
        pytest.fail(f"{item.nodeid} needs the mark peer({name!r})", pytrace=False)
