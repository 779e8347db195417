"""A private PostgreSQL cluster on a Unix socket: started here, and nothing else is ever stopped."""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

if TYPE_CHECKING:
    from collections.abc import Iterator

_INSTALL = "PostgreSQL's server is missing: apt-get install postgresql (or put initdb on PATH)"
_READY = "database system is ready to accept connections"


def missing() -> str | None:
    """Why there can be no cluster on this machine and what to do about it, or None."""
    if _binaries() is None:
        return _INSTALL
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        return "initdb refuses root and there is no setpriv to become another: install util-linux"
    return None


def _binaries() -> Path | None:
    """The newest installation's programs: Debian keeps them off PATH."""
    versions = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    newest = max(versions, key=lambda path: int(path.parts[-3]), default=None)
    found = newest or shutil.which("initdb")
    return Path(found).parent if found else None


class Cluster:
    """A running server. `sync=True` makes its commits durable, as measurements want them."""

    def __init__(self, directory: Path, *, sync: bool = False) -> None:
        binaries = _binaries()
        if binaries is None:
            raise RuntimeError(_INSTALL)
        self._binaries = binaries
        self._directory = directory
        self._data = directory / "data"
        self._sync = sync
        self._numbers = itertools.count(1)
        self._server: subprocess.Popen[str] | None = None
        self._user = _unprivileged()
        if self._user is not None:
            os.chown(directory, self._user.pw_uid, self._user.pw_gid)
        self._run("initdb", "-D", str(self._data), "-U", "hostler", "-A", "trust", "-N")
        self.start()

    def url(self, database: str = "postgres") -> str:
        """A SQLAlchemy URL."""
        return f"postgresql+psycopg://hostler@/{database}?host={self._directory}"

    def connect(self, database: str = "postgres") -> psycopg.Connection:
        """An autocommitting session of an administrator."""
        return psycopg.connect(
            host=str(self._directory), user="hostler", dbname=database, autocommit=True
        )

    def create(self, template: str | None = None) -> str:
        """Make a fresh database, empty or a copy of another; returns its name."""
        name = f"hostler_{next(self._numbers)}"
        with self.connect() as session:
            session.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template or "template1"}"')
        return name

    def drop(self, database: str) -> None:
        """Remove a database and whoever is still connected to it."""
        with self.connect() as session:
            session.execute(f'DROP DATABASE "{database}" WITH (FORCE)')

    def end_sessions(self, database: str) -> int:
        """End every session on a database, as an administrator does (D3); how many there were."""
        query = "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE datname = %s"
        with self.connect() as session:
            return len(session.execute(query, [database]).fetchall())

    def start(self) -> None:
        """Start the server and wait until it takes connections."""
        fsync = "on" if self._sync else "off"
        settings = ["listen_addresses=", f"unix_socket_directories={self._directory}"]
        settings += [f"fsync={fsync}", "max_connections=50", "shared_buffers=32MB"]
        options = [word for setting in settings for word in ("-c", setting)]
        # The server dies with the tests, also when they are killed.
        command = self._command("postgres", "-D", str(self._data), *options, dies_with_us=True)
        self._server = subprocess.Popen(
            command, cwd=self._directory, stderr=subprocess.PIPE, text=True
        )
        _wait_until_ready(self._server)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT: fast, sessions are told. SIGQUIT: at once, as in a crash."""
        server, self._server = self._server, None
        if server is not None:
            server.send_signal(how)
            server.wait(timeout=60)

    def _run(self, program: str, *arguments: str) -> None:
        command = self._command(program, *arguments)
        subprocess.run(command, cwd=self._directory, check=True, stdout=subprocess.DEVNULL)

    def _command(self, program: str, *arguments: str, dies_with_us: bool = False) -> list[str]:
        words: list[str] = []
        if self._user is not None:
            uid, gid = self._user.pw_uid, self._user.pw_gid
            words += [f"--reuid={uid}", f"--regid={gid}", "--clear-groups"]
        if dies_with_us and shutil.which("setpriv"):
            words += ["--pdeathsig", "INT"]
        prefix = ["setpriv", *words] if words else []
        return [*prefix, str(self._binaries / program), *arguments]


def _unprivileged() -> pwd.struct_passwd | None:
    """Whom to become: nobody else, unless we are root."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


def _wait_until_ready(server: subprocess.Popen[str]) -> None:
    """Read the server's log until it says so, then keep reading it away."""
    ready = threading.Event()
    said: list[str] = []

    def read() -> None:
        assert server.stderr is not None
        with server.stderr as log:
            for line in log:
                if not ready.is_set():
                    said.append(line)
                if _READY in line:
                    ready.set()
        ready.set()

    threading.Thread(target=read, name="postgres-log", daemon=True).start()
    ready.wait(timeout=60)
    if server.poll() is not None or not any(_READY in line for line in said):
        server.kill()
        server.wait()
        raise RuntimeError("PostgreSQL did not start:\n" + "".join(said))


@contextlib.contextmanager
def cluster(*, sync: bool = False) -> Iterator[Cluster]:
    """A cluster in a temporary directory, gone afterwards."""
    # Not pytest's tmp_path: a socket's path has 107 bytes, and other users must get there.
    directory = Path(tempfile.mkdtemp(prefix="hostler-pg-"))
    running = None
    try:
        running = Cluster(directory, sync=sync)
        yield running
    finally:
        if running is not None:
            running.stop()
        shutil.rmtree(directory)
