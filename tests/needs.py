"""Which real peers a test needs: what its marks say, and what the fixtures that it uses say."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
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


def declared(fixture: pytest.FixtureDef[object]) -> str | None:
    """The peer that a fixture declares, or None."""
    peer: str | None = getattr(fixture.func, _ATTRIBUTE, None)
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
