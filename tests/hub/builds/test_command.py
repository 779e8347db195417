"""What a running command takes from its agent, which may say anything (tests of whole builds are in
`tests/hub/web/api/test_builds.py`).
"""

from __future__ import annotations

from typing import Any, cast

import pytest

from hostler_agent.wire.errors import ProtocolError
from hostler_hub.builds.command import CommandRun
from hostler_hub.builds.logs import LogWriter


class Appended:
    """A log that takes everything."""

    end = 0

    def append(self, stream: str, data: bytes, offset: int | None) -> None:
        assert isinstance(data, bytes)


@pytest.mark.parametrize(
    "pair",
    [
        ("log", 5),
        ("log", ["name"]),
        ("log", ["name", "text", 3]),
        ("log", {"name": "text"}),
        ("log", ["name", 5]),
        ("stdout", 5),
        ("stdout", [5]),
        ("output", 5),
        ("output", {"stream": 1}),
        ("receipt", "all well"),
    ],
    ids=str,
)
async def test_a_report_that_makes_no_sense_is_refused_with_a_reason(pair: tuple[str, Any]) -> None:
    command = CommandRun("01ARZ3NDEKTSV4RRFFQ69G5FAV", cast(LogWriter, Appended()))
    with pytest.raises(ProtocolError, match=r"\w+"):
        await command.update([pair])
