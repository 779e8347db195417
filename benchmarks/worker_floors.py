"""What must be paid in any case: bare spawns, and a pipe that is read and decoded."""

from __future__ import annotations

import codecs
import os
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

TRUE = "/bin/true"


def spawns_per_s(count: int) -> float:
    """One after the other, as subprocess.Popen does it."""
    began_at = time.perf_counter()
    for _ in range(count):
        subprocess.Popen([TRUE], stdin=subprocess.DEVNULL).wait()
    return count / (time.perf_counter() - began_at)


def spawns_at_once_per_s(count: int, at_once: int = 8) -> float:
    """So many at a time, by posix_spawn."""

    def spawn(_: int) -> None:
        os.waitpid(os.posix_spawn(TRUE, [TRUE], os.environ), 0)

    with ThreadPoolExecutor(at_once) as executor:
        began_at = time.perf_counter()
        list(executor.map(spawn, range(count)))
        return count / (time.perf_counter() - began_at)


def pipe_bytes_per_s(argv: Sequence[str]) -> float:
    """A command's output read in pieces of 64 KiB and decoded, and thrown away."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    total = 0
    began_at = time.perf_counter()
    with subprocess.Popen(argv, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout is not None
        while data := process.stdout.read(65536):
            total += len(decoder.decode(data))
    return total / (time.perf_counter() - began_at)
