"""What stays is left alone, and garbage among it is found all the same."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import gc, weakref
from hostler_hub.runtime import garbage_collection as garbage

class Connection:
    def __init__(self):
        self.itself = self

garbage.watch()
at_start = gc.get_freeze_count()
assert at_start > 1000

ended = Connection()
gc.collect()
assert gc.get_freeze_count() > at_start
gone = weakref.ref(ended)
del ended
gc.collect()
assert gone() is not None, "it was looked at: nothing is left alone"

more = []
while gone() is not None:
    more.append([[] for _ in range(at_start // 4)])
    gc.collect()
    assert len(more) < 8, "garbage among what stays is never found"
assert len(more) >= 2, "all is looked at each time"
more.clear()
gc.collect()
"""


def test_V15_what_stays_is_left_alone_until_there_is_twice_as_much() -> None:
    """In a process of its own, which has little."""
    subprocess.run([sys.executable, "-c", _PROGRAM], check=True, timeout=60)
