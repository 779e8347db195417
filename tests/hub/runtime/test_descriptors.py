"""The limit of open files, in a process of its own: it can be lowered for good only once."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from hostler_hub.runtime import descriptors

SHOWN = """
import resource
from hostler_hub.runtime import descriptors
descriptors.raise_limit()
print(*resource.getrlimit(resource.RLIMIT_NOFILE), descriptors.for_connections())
"""


def test_the_soft_limit_becomes_the_hard_one() -> None:
    limited = f'ulimit -n 600; ulimit -S -n 200; exec {sys.executable} -c "$0"'
    said = subprocess.run(
        ["sh", "-c", limited, SHOWN], capture_output=True, text=True, check=True, timeout=60
    )
    assert said.stdout.split() == ["600", "600", "450"]


@pytest.mark.parametrize(
    ("soft", "connections"),
    [(1024, 768), (65536, 64512), (100, 36), (32, 1), (resource.RLIM_INFINITY, 2**20 - 1024)],
)
def test_the_store_has_a_share_of_its_own(
    monkeypatch: pytest.MonkeyPatch, soft: int, connections: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, soft))
    assert descriptors.for_connections() == connections
