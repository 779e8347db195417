"""V18: the hub's end takes its deadline and no longer, and names what did not close."""

from __future__ import annotations

import asyncio

import pytest

from hostler_hub.runtime.shutdown import Closing


async def test_parts_that_close_are_not_named() -> None:
    closing = Closing(deadline_s=60)
    done: list[str] = []

    async def close(name: str) -> None:
        done.append(name)

    for name in ("a", "b"):
        await closing.within(name, lambda name=name: close(name))  # type: ignore[misc]
    assert done == ["a", "b"]
    assert closing.unclosed == []


async def test_a_part_that_hangs_is_cut_off_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hostler_hub.runtime.shutdown._LEAST_S", 0.0)
    closing = Closing(deadline_s=0.01)
    cancelled = asyncio.Event()

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    await closing.within("stuck", hang)
    assert cancelled.is_set()
    assert closing.unclosed == ["stuck"]


async def test_what_a_part_raises_is_not_swallowed() -> None:
    async def broken() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await Closing(deadline_s=60).within("part", broken)
