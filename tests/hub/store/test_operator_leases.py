"""Leases that have ended: which of them are found, on both databases."""

from __future__ import annotations

import pytest

from hostler_hub.store import operator_leases


def ended(number: int, worker: str, holder: str) -> dict[str, object]:
    lease = {"holder": holder, "reason": "a look"}
    row = {"id": f"{number:026}", "worker": worker, "instance": None, "lease": lease}
    return row | {"ended_at": float(number), "end_reason": "released"}


@pytest.mark.parametrize(
    ("worker", "holder", "limit", "found"),
    [
        (None, None, 2, [9, 8]),
        ("w1", None, 9, [9, 7, 5, 3, 1]),
        (None, "ann", 9, [1, 0]),
        (None, "ann", 1, [1]),
        ("w1", "ann", 9, [1]),
        ("w0", 'b"; --', 9, [8, 6, 4, 2]),
        (None, "nobody", 9, []),
    ],
)
async def test_the_limit_counts_those_that_match(store, worker, holder, limit, found):
    """A holder whose leases are older than many others' finds them all the same."""
    holders = ["ann", "ann", *['b"; --'] * 8]
    rows = [ended(n, f"w{n % 2}", holder) for n, holder in enumerate(holders)]
    await store.write(operator_leases.append, rows)
    got = await store.read(operator_leases.recent, worker, holder, limit)
    assert [int(row["id"]) for row in got] == found
