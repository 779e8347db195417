"""Every scenario and every fault of the lists has a test that names it; elsewhere or here."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
LISTS = {"L": 35, "M": 10, "W": 4, "K": 12, "P": 21, "A": 16, "D": 8}
"""L, M, W: what Buildbot tests of latent workers, machines and its worker's side; K, P, A, D: the
hub's crashes, providers, attaching and running, storage."""

_TEST = re.compile(r"def (test_\w+)")
_RANGE = re.compile(r"([A-Z])(\d+)_to_\1(\d+)")
_ID = re.compile(r"(?<=_)([A-Za-z])(\d{1,2})(?=_)")


def named() -> set[str]:
    """The ids in the names of all tests; a range stands for all in between."""
    found = set()
    for path in TESTS.rglob("test_*.py"):
        for test in _TEST.findall(path.read_text()):
            found |= {f"{letter.upper()}{int(n)}" for letter, n in _ID.findall(test)}
            for letter, first, last in _RANGE.findall(test):
                found |= {f"{letter}{n}" for n in range(int(first), int(last) + 1)}
    return found


def test_every_id_of_the_lists_names_a_test() -> None:
    wanted = {f"{letter}{n}" for letter, last in LISTS.items() for n in range(1, last + 1)}
    assert sorted(wanted - named()) == []
