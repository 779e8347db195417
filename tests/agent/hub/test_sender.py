"""Reports that the hub cannot store now are sent again, in order, over the same connection."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hostler_agent.hub import sender
from hostler_agent.hub.outbox import Outbox
from hostler_agent.hub.sender import ReportSender
from hostler_agent.wire.errors import RemoteError
from hostler_agent.wire.extension import AGAIN
from hostler_agent.wire.messages import Update


class Lease:
    """One that lasts."""

    def check(self) -> None:
        pass


class Connection:
    """Answers each report as `answers` says; the last of them for all further ones."""

    def __init__(self, *answers: str | None) -> None:
        self.sent: list[Any] = []
        self._answers = list(answers)

    async def post(self, report: Any) -> asyncio.Future[Any]:
        self.sent.append(report)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        refused = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if refused is None:
            answer.set_result(None)
        else:
            answer.set_exception(RemoteError(refused))
        return answer


async def sent_over(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Send three reports until all are acknowledged; their numbers in the order of sending."""
    monkeypatch.setattr(sender, "AGAIN_S", 0.001)
    monkeypatch.setattr(sender, "AGAIN_LONGEST_S", 0.001)
    outbox = Outbox()
    for number in range(3):
        await outbox.put(Update("c", [["rc", number]]))
    sending = ReportSender(outbox, connection, Lease())  # type: ignore[arg-type]
    async with asyncio.timeout(60):
        await outbox.drained()
    await sending.aclose()
    numbers = {id(report): number for number, report in enumerate(connection.sent[:3])}
    return [numbers[id(report)] for report in connection.sent]


async def test_D2_all_come_again_until_they_are_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = Connection(*[AGAIN] * 6, None)
    assert await sent_over(connection, monkeypatch) == [0, 1, 2] * 3


async def test_what_was_stored_comes_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = Connection(None, AGAIN, AGAIN, None)
    assert await sent_over(connection, monkeypatch) == [0, 1, 2, 1, 2]


async def test_another_refusal_is_final(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = Connection("unknown command_id 'c'")
    assert await sent_over(connection, monkeypatch) == [0, 1, 2]
