"""What a running command takes from its agent, which may say anything (tests of whole builds are in
`tests/hub/web/api/test_builds.py`).
"""

from __future__ import annotations

import asyncio
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


class Rows:
    """A log that keeps what is appended; each append is durable a turn later."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, bytes]] = []
        self.end = 0

    def append(self, stream: str, data: bytes, offset: int | None) -> asyncio.Future[int]:
        self.rows.append((stream, data))
        self.end += len(data)
        stored: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(stored.set_result, self.end)
        return stored


def line(stream: str, text: str) -> tuple[str, Any]:
    return ("log", [stream, [text, [len(text) - 1], [0.0]]])


async def test_large_updates_are_taken_in_the_order_in_which_they_came() -> None:
    log = Rows()
    command = CommandRun("01ARZ3NDEKTSV4RRFFQ69G5FAV", cast(LogWriter, log))
    streams = ("a", "b")
    large = [line(streams[n % 2], f"{n}\n") for n in range(1000)]
    small = [line("c", "small\n")]
    async with asyncio.TaskGroup() as tasks:
        for pairs in (large, small, large):
            tasks.create_task(command.update(pairs))
        end = tasks.create_task(command.complete(None))
        await asyncio.wait([command.outcome])
        command.stored.set()
        await end
    numbers = [f"{n}\n".encode() for n in range(1000)]
    assert [data for _, data in log.rows] == [*numbers, b"small\n", *numbers]
    assert command.owed == log.end


async def test_V19_others_have_their_turn_while_a_large_update_is_taken() -> None:
    log = Rows()
    command = CommandRun("01ARZ3NDEKTSV4RRFFQ69G5FAV", cast(LogWriter, log))
    taking = asyncio.create_task(command.update([line(str(n % 2), "x\n") for n in range(10_000)]))
    turns = 0
    while not taking.done():
        turns += 1
        await asyncio.sleep(0)
    assert turns > 100


async def test_consecutive_lines_of_a_stream_are_one_row() -> None:
    log = Rows()
    command = CommandRun("01ARZ3NDEKTSV4RRFFQ69G5FAV", cast(LogWriter, log))
    words = [("stdout", "a\n"), ("stdout", "b\n"), ("stderr", "c\n"), ("stdout", "d\n")]
    await command.update([(key, [text, [1], [0.0]]) for key, text in words])
    assert log.rows == [("stdout", b"a\nb\n"), ("stderr", b"c\n"), ("stdout", b"d\n")]


async def test_of_an_update_with_a_value_that_is_none_nothing_is_taken() -> None:
    log = Rows()
    command = CommandRun("01ARZ3NDEKTSV4RRFFQ69G5FAV", cast(LogWriter, log))
    with pytest.raises(ProtocolError):
        await command.update([line("a", "x\n"), ("failure_reason", "why"), ("rc", 2**40)])
    assert (log.rows, command.failure_reason, command.rc) == ([], None, None)
