"""Sizes as people write and read them: `20 GiB`, `25%` of a disk, `none`; and what a disk has."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([KMGT]?)(?:i?B)?|(%))", re.IGNORECASE)
_WORDS = "must be a size such as 20 GiB, a share of the disk such as 25%, or none"


def parse_size(text: str, whole_bytes: int) -> int | None:
    """The bytes that a text means, of a disk of ``whole_bytes``; None for `none`. Units are powers
    of 1024. Raises ValueError, whose text says what is right.
    """
    if text.strip().lower() == "none":
        return None
    match = _SIZE.fullmatch(text.strip())
    if match is None or (match[3] and float(match[1]) > 100):
        raise ValueError(_WORDS)
    number = float(match[1])
    if match[3]:
        return int(number / 100 * whole_bytes)
    return int(number * _UNITS[match[2].upper()])


def show_size(size_bytes: int) -> str:
    """The size in the largest unit that leaves a whole part."""
    number, units = float(size_bytes), ["bytes", "KiB", "MiB", "GiB", "TiB"]
    while number >= 1024 and len(units) > 1:
        number /= 1024
        units.pop(0)
    return f"{size_bytes} bytes" if units[0] == "bytes" else f"{number:.1f} {units[0]}"


@dataclass(frozen=True, slots=True)
class Disk:
    """The file system that a directory is on."""

    path: Path

    def whole_bytes(self) -> int:
        """Its size. Raises OSError."""
        found = os.statvfs(self.path)
        return found.f_blocks * found.f_frsize

    def free_bytes(self) -> int:
        """What an ordinary process may still write; 0 if it has no room for another file. Raises
        OSError.
        """
        found = os.statvfs(self.path)
        is_out_of_inodes = found.f_files > 0 and found.f_favail == 0
        return 0 if is_out_of_inodes else found.f_bavail * found.f_frsize
