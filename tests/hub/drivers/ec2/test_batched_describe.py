"""Instances that are to be described at about the same time are described by one call."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from hostler_hub.drivers.ec2 import batched_describe as module
from hostler_hub.drivers.ec2.batched_describe import MAX_IDS, BatchedDescribe


class Region:
    """Knows all but the missing."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.broken = False
        self.called = asyncio.Event()
        self.held = asyncio.Event()
        self.held.set()

    async def several(self, ids: list[str]) -> Mapping[str, Mapping[str, Any]]:
        self.asked.append(ids)
        self.called.set()
        await self.held.wait()
        if self.broken:
            raise ConnectionError("as ordered")
        return {each: {"InstanceId": each} for each in ids if "missing" not in each}


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GATHER_S", 0)
    monkeypatch.setattr(module, "APART_S", 0)


async def test_what_is_wanted_together_is_asked_once_and_each_gets_its_own() -> None:
    region = Region()
    batches = BatchedDescribe(region.several)
    wanted = ["i-1", "i-2", "i-missing", "i-1"]
    seen = await asyncio.gather(*(batches.describe(each) for each in wanted))
    assert region.asked == [["i-1", "i-2", "i-missing"]]
    assert seen == [{"InstanceId": "i-1"}, {"InstanceId": "i-2"}, None, {"InstanceId": "i-1"}]
    assert await batches.describe("i-1") == {"InstanceId": "i-1"}
    assert len(region.asked) == 2, "nothing is remembered"


async def test_a_call_names_as_many_as_a_filter_takes() -> None:
    region = Region()
    batches = BatchedDescribe(region.several)
    await asyncio.gather(*(batches.describe(f"i-{number}") for number in range(2 * MAX_IDS + 1)))
    assert [len(ids) for ids in region.asked] == [MAX_IDS, MAX_IDS, 1]


async def test_who_comes_soon_after_a_call_waits_for_company(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Looks that are due one after the other must not be as many calls."""
    turn, passed = asyncio.sleep, asyncio.Event()

    async def sleep(seconds: float) -> None:
        await (passed.wait() if seconds > 0 else turn(0))

    monkeypatch.setattr(module, "APART_S", 3600)
    monkeypatch.setattr("hostler_hub.drivers.ec2.batched_describe.asyncio.sleep", sleep)
    region = Region()
    batches = BatchedDescribe(region.several)
    await batches.describe("i-1")
    coming = []
    for number in range(2, 7):
        coming.append(asyncio.create_task(batches.describe(f"i-{number}")))
        for _ in range(3):
            await turn(0)
    passed.set()
    assert [each["InstanceId"] for each in await asyncio.gather(*coming) if each] == [
        "i-2", "i-3", "i-4", "i-5", "i-6",
    ]  # fmt: skip
    assert [len(ids) for ids in region.asked] == [1, 5]


async def test_who_comes_while_a_call_is_under_way_gets_the_next() -> None:
    region = Region()
    batches = BatchedDescribe(region.several)
    region.held.clear()
    first = asyncio.create_task(batches.describe("i-1"))
    await region.called.wait()
    second = asyncio.create_task(batches.describe("i-1"))
    region.held.set()
    await asyncio.gather(first, second)
    assert region.asked == [["i-1"], ["i-1"]], "the first may have been answered before"


async def test_a_failure_is_everybodys_and_not_the_next_ones() -> None:
    region = Region()
    batches = BatchedDescribe(region.several)
    region.broken = True
    results = await asyncio.gather(
        batches.describe("i-1"), batches.describe("i-2"), return_exceptions=True
    )
    assert [type(each) for each in results] == [ConnectionError, ConnectionError]
    region.broken = False
    assert await batches.describe("i-1") is not None


async def test_one_who_gives_up_takes_nothing_from_the_others() -> None:
    region = Region()
    batches = BatchedDescribe(region.several)
    impatient, patient = (asyncio.create_task(batches.describe("i-1")) for _ in range(2))
    await asyncio.sleep(0)
    impatient.cancel()
    assert await patient is not None
    region.held.clear()
    late = asyncio.create_task(batches.describe("i-1"))
    await asyncio.sleep(0)
    await batches.aclose()
    with pytest.raises(asyncio.CancelledError):
        await late
