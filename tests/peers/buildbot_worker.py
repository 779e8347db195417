"""A stock Buildbot worker in a process of its own, given our hub for a master."""

from __future__ import annotations

import subprocess
from pathlib import Path

from peers import buildbot


class StockWorker:
    """May be started, killed, and started again."""

    def __init__(self, basedir: Path, port: int, name: str, password: str) -> None:
        self.basedir = basedir
        self._process: subprocess.Popen[bytes] | None = None
        command = [buildbot.program("buildbot-worker"), "create-worker", "--quiet"]
        command += ["--no-logrotate", "--protocol=msgpack_experimental_v7", "--maxdelay=1"]
        subprocess.run([*command, basedir, f"127.0.0.1:{port}", name, password], check=True)

    @property
    def log(self) -> str:
        """What it has written into its own log so far: every message from and to its hub."""
        return (self.basedir / "twistd.log").read_text("utf-8", "replace")

    def start(self) -> None:
        self._process = subprocess.Popen(
            [buildbot.program("buildbot-worker"), "start", "--nodaemon", self.basedir],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def kill(self) -> None:
        """SIGKILL, to it alone: its commands are left to themselves, as in real life."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
