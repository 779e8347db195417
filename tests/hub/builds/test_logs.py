"""Logs within their submitter's quota: cut in so many words, also across a restart (V7)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from hostler_hub.builds.logs import Logs, LogWriter, StepKey, StoredLog
from hostler_hub.builds.quotas import Kind, Limits, Quotas
from hostler_hub.store import builds
from hostler_hub.store.engine import Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

BUILD = "01K8Z9Q8Y3N6V4T2R0P9M7K5J3"
FIRST, SECOND = StepKey(BUILD, 1, 0), StepKey(BUILD, 1, 1)
STEP = {"build": BUILD, "attempt": 1, "name": "run", "state": "running", "log_size_bytes": 0}
CUT = b"\n[truncated: the logs of ann may have 10 bytes, and have %d bytes already]\n"


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    row: dict[str, Any] = {"id": BUILD, "state": "running", "spec": {}, "priority": 0}
    row |= {"submitted_by": "ann", "submitted_at": 0.0, "attempts": 1}
    async with Store(database_url) as store:
        await store.write(builds.insert, row)
        await store.write(builds.insert_steps, [STEP | {"index": 0}, STEP | {"index": 1}])
        yield store


async def hub(store: Store, per_submitter: int = 10) -> Logs:
    """The logs of a hub that has just started."""
    logs = Logs(store, 1000, Quotas({Kind.LOGS: Limits(per_submitter)}))
    await logs.load()
    return logs


async def writer(logs: Logs, key: StepKey, by: str = "ann") -> LogWriter:
    row = (await logs._store.read(builds.steps, BUILD, 1))[key.index]
    stored = StoredLog(row["log_size_bytes"], row["log_cut_at"])
    return logs.writer(key, logs._quotas.account(by), stored)


async def content(logs: Logs, key: StepKey) -> bytes:
    return (await logs.read(key, 0, 10_000)).data


async def test_a_log_over_quota_ends_in_so_many_words(store: Store) -> None:
    logs = await hub(store)
    log = await writer(logs, FIRST)
    await log.append("stdout", b"1234")
    assert not log.is_cut
    await log.append("stdout", b"567890ab")
    assert log.is_cut
    await log.append("stdout", b"more")
    assert await content(logs, FIRST) == b"1234567890" + CUT % 4
    second = await writer(logs, SECOND)
    await second.append("stdout", b"x")
    assert await content(logs, SECOND) == CUT % 10


async def test_the_hub_s_own_line_is_there_all_the_same(store: Store) -> None:
    """Why a step failed must not be lost because its submitter has a full quota."""
    logs = await hub(store)
    log = await writer(logs, FIRST)
    await log.append("stdout", b"1234567890ab", 0)
    log.note("the artifacts of ann ...")
    await log.append("stdout", b"1234567890ab", 0)
    await log.append("stdout", b"more", 12)
    await log.append("header", b"and more")
    cut = b"1234567890" + CUT % 0
    assert await content(logs, FIRST) == cut + b"the artifacts of ann ...\n"


async def test_V19_another_submitter_s_log_goes_on(store: Store) -> None:
    logs = await hub(store)
    await (await writer(logs, FIRST)).append("stdout", b"x" * 20)
    await (await writer(logs, SECOND, by="bob")).append("stdout", b"y" * 10)
    assert await content(logs, SECOND) == b"y" * 10


async def test_K8_what_is_sent_again_is_neither_counted_nor_stored_again(store: Store) -> None:
    logs = await hub(store)
    log = await writer(logs, FIRST)
    for _ in range(2):
        await log.append("stdout", b"12345", 0)
        await log.append("stdout", b"678", 5)
    assert logs._quotas.view().logs.used_bytes == 8
    for _ in range(2):
        await log.append("stdout", b"90abcd", 8)
        await log.append("stdout", b"efgh", 14)
    assert await content(logs, FIRST) == b"1234567890" + CUT % 8


async def test_the_next_hub_counts_what_is_stored_and_leaves_a_cut_log_cut(store: Store) -> None:
    """Its agent goes on at offsets that the log does not have, and sends again what was not
    acknowledged.
    """
    await (await writer(await hub(store), FIRST)).append("stdout", b"1234567890ab", 0)
    cut = await content(await hub(store), FIRST)
    logs = await hub(store, per_submitter=10_000)
    assert logs._quotas.view().logs.used_bytes == len(cut)
    log = await writer(logs, FIRST)
    assert log.is_cut
    await log.append("stdout", b"1234567890ab", 0)
    await log.append("stdout", b"cdef", 12)
    await log.append("stdout", b"at its end")
    assert await content(logs, FIRST) == cut


async def test_the_step_s_own_limit_is_still_there(store: Store) -> None:
    logs = Logs(store, 5, Quotas())
    log = await writer(logs, FIRST)
    for start in (0, 0, 8):
        await log.append("stdout", b"12345678", start)
    assert await content(logs, FIRST) == b"12345\n[truncated at 5 bytes]\n"
    assert not log.is_cut
    assert logs._quotas.view().logs.used_bytes == 5
