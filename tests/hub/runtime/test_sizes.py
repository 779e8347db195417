"""Sizes as people write them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hostler_hub.runtime.sizes import Disk, parse_size, show_size

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("none", None),
        ("None ", None),
        ("0", 0),
        ("1024", 1024),
        ("1 GiB", 2**30),
        ("20G", 20 * 2**30),
        ("1.5MB", 3 * 2**19),
        ("2 kib", 2048),
        ("25%", 250),
        ("100 %", 1000),
    ],
)
def test_a_size(text: str, size_bytes: int | None) -> None:
    assert parse_size(text, 1000) == size_bytes


@pytest.mark.parametrize("text", ["", "-1", "101%", "many", "1 PiB", "GiB", "1e9"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="must be a size such as 20 GiB"):
        parse_size(text, 1000)


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (2**30, "1.0 GiB")],
)
def test_a_size_in_words(size_bytes: int, text: str) -> None:
    assert show_size(size_bytes) == text


def test_a_disk_has_what_the_system_says(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    assert 0 < disk.free_bytes() <= disk.whole_bytes()
