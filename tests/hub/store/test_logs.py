"""V7, K8: acknowledged log bytes are never lost, reordered or doubled."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hostler_hub.runtime.ids import new_ulid
from hostler_hub.store import builds, logs
from hostler_hub.store.errors import LogGap, StaleRow

LIMIT = 1 << 20


@pytest.fixture
async def step(store, step_row):
    build = new_ulid()
    await store.write(builds.insert_steps, [step_row(build, 1, 0), step_row(build, 1, 1)])
    return build, 1, 0


async def test_append_moves_the_durable_end(store, step):
    assert await store.write(logs.append, *step, 0, "stdout", b"hello ") == 6
    assert await store.write(logs.append, *step, 6, "stderr", b"world") == 11
    assert await store.read(logs.read, *step, 0, LIMIT) == (b"hello world", 11)
    assert (await store.read(builds.steps, *step[:2]))[0]["log_size_bytes"] == 11
    assert await store.read(logs.chunks, *step, 3, 5) == [
        logs.Chunk(3, "stdout", b"lo "),
        logs.Chunk(6, "stderr", b"wo"),
    ]


async def test_k8_resent_bytes_are_trimmed(store, step):
    await store.write(logs.append, *step, 0, "stdout", b"hello ")
    assert await store.write(logs.append, *step, 0, "stdout", b"hello ") == 6
    assert await store.write(logs.append, *step, 2, "stdout", b"llo world") == 11
    assert await store.write(logs.append, *step, 1, "stdout", b"e") == 11
    assert await store.write(logs.append, *step, 11, "stdout", b"") == 11
    assert await store.read(logs.read, *step, 0, LIMIT) == (b"hello world", 11)


async def test_gap_is_refused_and_says_where_to_resume(store, step):
    await store.write(logs.append, *step, 0, "stdout", b"hello ")
    with pytest.raises(LogGap) as gap:
        await store.write(logs.append, *step, 7, "stdout", b"orld")
    assert (gap.value.offset, gap.value.end) == (7, 6)
    with pytest.raises(LogGap):
        await store.write(logs.append, *step, 7, "stdout", b"")
    assert await store.read(logs.read, *step, 0, LIMIT) == (b"hello ", 6)


async def test_unknown_step_is_refused(store, step):
    with pytest.raises(StaleRow):
        await store.write(logs.append, step[0], 2, 0, 0, "stdout", b"hello")


async def test_two_senders_of_the_same_bytes_in_one_group(store, step):
    sends = [store.write(logs.append, *step, 0, "stdout", b"hello") for _ in range(8)]
    assert await asyncio.gather(*sends) == [5] * 8
    assert await store.read(logs.read, *step, 0, LIMIT) == (b"hello", 5)


async def test_reading_past_the_end_gives_nothing(store, step):
    assert await store.read(logs.read, *step, 0, LIMIT) == (b"", 0)
    await store.write(logs.append, *step, 0, "stdout", b"hello")
    assert await store.read(logs.read, *step, 5, LIMIT) == (b"", 5)
    assert await store.read(logs.read, *step, 99, LIMIT) == (b"", 99)


async def test_logs_hold_any_bytes(store, step):
    """E12: NUL, escapes and broken UTF-8 are bytes like others."""
    data = bytes(range(256)) * 3
    await store.write(logs.append, *step, 0, "stdout", data)
    assert await store.read(logs.read, *step, 0, LIMIT) == (data, len(data))


SENDS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 30)), max_size=20)


@settings(
    max_examples=40,
    deadline=None,
    # One store serves all examples; each has a step of its own.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(sends=SENDS, at=st.integers(0, 60), limit=st.integers(1, 60))
async def test_any_order_of_resends_leaves_a_prefix_of_the_source(
    store, step_row, sends, at, limit
):
    """Whatever slices arrive, in whatever order and how often, the log is the source's start."""
    source = bytes(range(90))
    build = new_ulid()
    await store.write(builds.insert_steps, [step_row(build)])
    end = 0
    for offset, size in sends:
        send = store.write(logs.append, build, 1, 0, offset, "stdout", source[offset:][:size])
        if offset > end:
            with pytest.raises(LogGap):
                await send
        else:
            end = max(end, min(offset + size, len(source)))
            assert await send == end
    assert await store.read(logs.read, build, 1, 0, 0, LIMIT) == (source[:end], end)
    part = source[:end][at : at + limit]
    assert await store.read(logs.read, build, 1, 0, at, limit) == (part, at + len(part))
