"""Worker names and ULIDs."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler_hub.runtime.ids import check_worker_name, earliest_ulid, is_ulid, new_ulid, ulid_ms


@pytest.mark.parametrize("name", ["a", "7", "docker-01", "a" * 63, "a--b"])
def test_names_of_workers(name):
    assert check_worker_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "-a",
        "a-",
        "A",
        "a.b",
        "a_b",
        "a/b",
        "..",
        "a b",
        "a\n",
        "ä",
        "a" * 64,
        "-oProxyCommand=x",
    ],
)
def test_injection_by_name_is_refused_at_the_border(name):
    with pytest.raises(ValueError, match="worker name"):
        check_worker_name(name)


@given(st.text(max_size=70))
def test_accepted_names_are_safe_anywhere(name):
    try:
        check_worker_name(name)
    except ValueError:
        return
    assert name.isascii()
    assert name.replace("-", "").isalnum()
    assert name == name.lower().strip("-")


def test_ulid_holds_its_time():
    # The specification's own example: https://github.com/ulid/spec
    assert new_ulid(1_469_918_176_385).startswith("01ARYZ6S41")
    assert new_ulid(0).startswith("0" * 10)
    assert new_ulid((1 << 48) - 1).startswith("7ZZZZZZZZZ")
    assert len(new_ulid()) == 26


@pytest.mark.parametrize("now_ms", [-1, 1 << 48])
def test_ulid_refuses_times_it_cannot_hold(now_ms):
    with pytest.raises(ValueError, match="cannot hold"):
        new_ulid(now_ms)


def test_ulids_keep_the_order_of_the_calls_within_a_millisecond():
    made = [new_ulid(1_700_000_000_000) for _ in range(1000)]
    assert made == sorted(made)
    assert len(set(made)) == 1000


@given(st.lists(st.integers(0, (1 << 48) - 1), min_size=2, max_size=2, unique=True))
def test_ulids_sort_by_time(times):
    first, second = (new_ulid(at) for at in sorted(times))
    assert first < second


def test_ulids_are_unique_across_threads():
    made = []
    threads = [
        threading.Thread(target=lambda: made.extend([new_ulid(5) for _ in range(500)]))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 2000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("01ARZ3NDEKTSV4RRFFQ69G5FAV", True),
        ("01arz3ndektsv4rrffq69g5fav", False),
        ("81ARZ3NDEKTSV4RRFFQ69G5FAV", False),
        ("01ARZ3NDEKTSV4RRFFQ69G5FAU", False),
        ("01ARZ3NDEKTSV4RRFFQ69G5FAV\n", False),
    ],
)
def test_is_ulid(text, expected):
    assert is_ulid(text) is expected


@given(st.integers(0, 2**48 - 1))
def test_a_ulid_tells_when_it_was_made(at_ms):
    made = new_ulid(at_ms)
    assert ulid_ms(made) == ulid_ms(earliest_ulid(at_ms)) == at_ms
    assert earliest_ulid(at_ms) <= made
    assert made < earliest_ulid(at_ms + 1) or at_ms == 2**48 - 1
    assert ulid_ms("b1") == 0
