"""The benchmarks are run by hand; so that they do not rot unseen, they are imported here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parent.parent


def test_every_benchmark_can_be_imported_and_is_named() -> None:
    argv = [sys.executable, "-m", "benchmarks", "--help"]
    done = subprocess.run(argv, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "dispatch" in done.stdout
