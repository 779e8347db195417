"""What /proc tells of processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hostler_agent.jobs.posix import procfs


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may start a process as another user")
def test_the_owner_of_a_process_that_forbids_its_inspection_is_its_user() -> None:
    """Linux gives its files in /proc to root."""
    program = (
        "import ctypes, os; from hostler_agent import machine; os.setuid(65534); "
        "machine.forbid_inspection(); print('Ready', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"Ready\n"
        assert Path(f"/proc/{process.pid}").stat().st_uid == 0
        assert procfs.owner(process.pid) == 65534
        process.communicate(b"\n")
    assert procfs.owner(process.pid) is None
