"""What is kept of an instance that failed: bounded, and never a reason for it to go on."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, cast

import pytest

from hostler_hub.drivers.contract import InstanceRef
from hostler_hub.runtime.virtual_clock import VirtualClock
from hostler_hub.workers import evidence as evidence_module
from hostler_hub.workers.evidence import TEXT_SIZE_BYTES, TEXTS, Evidence

REF = InstanceRef("w", "I0", 1, {}, {})


class Rows:
    """A store that keeps what is written."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    async def write(self, _statement: object, row: dict[str, Any]) -> None:
        self.rows.append(row)


class Driver:
    """A driver whose evidence is this; an exception is raised, None never answered."""

    def __init__(self, answer: Mapping[str, str] | Exception | None) -> None:
        self._answer = answer

    async def evidence(self, _ref: InstanceRef) -> Mapping[str, str]:
        if isinstance(self._answer, Exception):
            raise self._answer
        if self._answer is None:
            await asyncio.Event().wait()
        return cast("Mapping[str, str]", self._answer)


async def gathered(driver: object) -> list[dict[str, Any]]:
    store = Rows()
    gatherer = Evidence(cast("Any", store), VirtualClock(100.0))
    await gatherer.gather(cast("Any", driver), REF, "create failed: 504")
    return store.rows


async def test_what_a_driver_says_is_kept_with_why_it_was_asked() -> None:
    (row,) = await gathered(Driver({"console": "panic"}))
    assert row == {
        "instance": "I0",
        "worker": "w",
        "at": 100.0,
        "why": "create failed: 504",
        "texts": {"console": "panic"},
    }


async def test_V15_texts_are_bounded_in_number_names_and_size() -> None:
    long = "begin" + "x" * TEXT_SIZE_BYTES + "end"
    (row,) = await gathered(Driver({f"{n:02d}" + "n" * 100: long for n in range(TEXTS + 5)}))
    assert len(row["texts"]) == TEXTS
    for name, text in row["texts"].items():
        assert len(name) == 64
        assert text.startswith("[...]\n")
        assert text.endswith("end")
        assert len(text.encode()) <= TEXT_SIZE_BYTES + len("[...]\n")


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("x" * TEXT_SIZE_BYTES, "x" * TEXT_SIZE_BYTES),
        ("ü" * TEXT_SIZE_BYTES, "[...]\n" + "ü" * (TEXT_SIZE_BYTES // 2)),
        ("a" + "ü" * (TEXT_SIZE_BYTES // 2), "[...]\n" + "ü" * (TEXT_SIZE_BYTES // 2)),
        ("ü" * (TEXT_SIZE_BYTES // 2) + "a", None),
        ("no \udcff text", "no ? text"),
    ],
    ids=["just fits", "counted in bytes", "cut at a letter", "cut in a letter", "no text"],
)
async def test_the_end_of_a_text_is_kept_whatever_it_is_made_of(
    text: str, kept: str | None
) -> None:
    (row,) = await gathered(Driver({"console": text}))
    assert row["texts"]["console"].encode()
    if kept is not None:
        assert row["texts"]["console"] == kept


@pytest.mark.parametrize(
    "driver",
    [Driver(OSError("no route")), Driver({}), object()],
    ids=["fails", "has nothing", "cannot tell"],
)
async def test_where_nothing_can_be_had_nothing_is_kept(driver: object) -> None:
    assert await gathered(driver) == []


async def test_a_driver_that_does_not_answer_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(evidence_module, "DEADLINE_S", 0.0)
    assert await gathered(Driver(None)) == []
