"""A stock Buildbot worker in a process of its own, given our hub for a master."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path
from typing import IO

from peers import buildbot

PATIENCE_S = 60.0


class StockWorker:
    """May be started, killed, and started again."""

    def __init__(self, basedir: Path, port: int, name: str, password: str) -> None:
        self.basedir = basedir
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._said: list[str] = []
        self._changed = threading.Condition()
        command = [buildbot.program("buildbot-worker"), "create-worker", "--quiet"]
        # Without a log file of its own it logs to the pipe we read.
        command += ["--no-logrotate", "--protocol=msgpack_experimental_v7", "--maxdelay=1"]
        subprocess.run([*command, basedir, f"127.0.0.1:{port}", name, password], check=True)

    def start(self) -> None:
        process = subprocess.Popen(
            [buildbot.program("buildbot-worker"), "start", "--nodaemon", self.basedir],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        assert process.stdout is not None
        self._process = process
        self._reader = threading.Thread(
            target=self._read, args=(process.stdout,), name="worker-log", daemon=True
        )
        self._reader.start()

    def says(self, text: str) -> str:
        """Wait for a line of its log that has `text` in it; blocks."""

        def found() -> str | None:
            return next((line for line in self._said if text in line), None)

        with self._changed:
            line = self._changed.wait_for(found, PATIENCE_S)
        assert line is not None, self._said[-20:]
        return line

    def kill(self) -> None:
        """SIGKILL, to it alone: its commands are left to themselves, as in real life."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            assert self._reader is not None
            self._reader.join(timeout=PATIENCE_S)

    def _read(self, pipe: IO[str]) -> None:
        with pipe:
            for line in pipe:
                with self._changed:
                    self._said.append(line[:1000])  # it logs the blocks of files, too
                    self._changed.notify_all()
