"""Runs programs of Windows and collects their output."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence

assert sys.platform == "win32"


def ask(argv: Sequence[str], deadline_s: float) -> tuple[int, str]:
    """Run a program; return (status, output). Raises OSError or subprocess.TimeoutExpired.

    The output goes into a file: a service that is started on the program's behalf could inherit a
    pipe and keep it open, so that waiting for its end would have no deadline.
    """
    with tempfile.TemporaryFile() as said:
        done = subprocess.run(
            argv,
            # It would ask for a password that it thinks it needs.
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            timeout=deadline_s,
            check=False,
        )
        said.seek(0)
        return done.returncode, said.read().decode("utf-8", "replace").strip()
