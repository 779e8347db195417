"""`hostler-hub` as people and roles run it: real processes on fresh state directories."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import urllib.request
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from hostler_hub.runtime import process
from hostler_hub.runtime.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.e2e

ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith("HOSTLER_")}


class Cli:
    """Runs commands on one state directory; ends what still runs."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self.environment = dict(ENVIRONMENT)

    def arguments(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "hostler_hub", *words, "--state-dir", str(self.state_dir)]

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.arguments(*words),
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

    def refused(self, *words: str) -> str:
        """The one line that a wrong call prints."""
        done = self(*words)
        assert done.returncode == 2, done
        assert done.stdout == ""
        assert done.stderr.startswith("hostler-hub: ")
        assert done.stderr.count("\n") == 1
        return done.stderr.strip()

    def start(self) -> str:
        done = self("start", "--port", "0")
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def status(self) -> dict[str, Any]:
        made: dict[str, Any] = json.loads(self("status", "--json").stdout)
        return made


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    made = Cli(tmp_path / "hub")
    yield made
    process.stop(Settings(state_dir=made.state_dir), timeout_s=60)


def get(url: str, token: str | None = None) -> Any:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60) as answer:
        return json.load(answer)


def test_a_life(cli: Cli) -> None:
    """Start, start again, look, make a token, stop, stop again."""
    assert cli("status").returncode == 1
    url = cli.start()
    assert get(f"{url}/healthz")["status"] == "ok"
    run = json.loads((cli.state_dir / "hub.json").read_text())
    assert run["url"] == url
    assert (cli.state_dir / "admin.token").stat().st_mode & 0o777 == 0o600

    again = cli("start", "--port", "0")
    assert (again.returncode, again.stdout) == (0, f"runs already: {url}\n")

    status = cli.status()
    assert (status["running"], status["healthy"], status["pid"]) == (True, True, run["pid"])
    assert status["workers"]["total"] == status["builds"]["running"] == 0
    assert url in cli("status").stdout

    token = cli("token", "create", "ci", "--role", "operator").stdout.strip()
    assert get(f"{url}/api/v1/whoami", token) == {"name": "ci", "role": "operator"}
    assert "ci already" in cli.refused("token", "create", "ci", "--role", "viewer")

    stopped = cli("stop")
    assert (stopped.returncode, stopped.stdout) == (0, "stopped\n")
    assert not (cli.state_dir / "hub.json").exists()
    assert cli("stop").stdout == "no hub runs\n"
    assert cli.status()["running"] is False
    log = (cli.state_dir / "hub.log").read_text()
    assert [json.loads(line)["event"] for line in log.splitlines()][-1] == "hub stopped"
    assert token not in log


def test_a_token_made_without_a_hub_is_known_to_the_next(cli: Cli) -> None:
    token = cli("token", "create", "ci", "--role", "viewer").stdout.strip()
    assert get(f"{cli.start()}/api/v1/whoami", token)["role"] == "viewer"


def test_two_starts_at_once_make_one_hub(cli: Cli) -> None:
    words = cli.arguments("start", "--port", "0")
    both = [
        subprocess.Popen(words, env=cli.environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [each.communicate(timeout=90)[0].strip().removeprefix("runs already: ") for each in both]
    assert [each.returncode for each in both] == [0, 0]
    assert said[0] == said[1] == cli.status()["url"]


def test_a_killed_hub_leaves_nothing_that_keeps_the_next_from_starting(cli: Cli) -> None:
    """K: the kernel frees the lock; the pid file alone proves nothing."""
    cli.start()
    pid = cli.status()["pid"]
    pidfd = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    with closing(os.fdopen(pidfd)) as file:
        import select

        assert select.select([file], [], [], 60)[0]
    assert cli.status()["running"] is False
    assert cli("stop").stdout == "no hub runs\n"
    assert get(f"{cli.start()}/healthz")["status"] == "ok"


@contextmanager
def serving(cli: Cli) -> Iterator[subprocess.Popen[str]]:
    """A hub in the foreground that has said it is ready."""
    reader, writer = os.pipe()
    environment = {**cli.environment, process.READY_FD: str(writer)}
    with subprocess.Popen(
        cli.arguments("serve", "--port", "0"),
        env=environment,
        pass_fds=(writer,),
        stderr=subprocess.PIPE,
        text=True,
    ) as hub:
        os.close(writer)
        with os.fdopen(reader) as pipe:
            assert pipe.readline() == "ready\n"
        yield hub


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_ends_in_order_when_asked(cli: Cli, number: signal.Signals) -> None:
    """V18: also while a client keeps its connection open and says nothing."""
    with serving(cli) as hub:
        port = int(cli.status()["url"].rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as idle:
            idle.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert idle.recv(12) == b"HTTP/1.1 200"
            hub.send_signal(number)
            errors = hub.communicate(timeout=60)[1]
    assert hub.returncode == 0, errors
    assert "Traceback" not in errors
    assert cli.status()["running"] is False


def test_a_long_poll_does_not_hold_up_a_stop(cli: Cli) -> None:
    """V18: who waits for a build is told to come back, long before the minute it asked for."""
    with serving(cli) as hub:
        url = cli.status()["url"]
        token = (cli.state_dir / "admin.token").read_text().strip()
        running = process.Running(None, url, None, local_url=url)

        def post(path: str, body: Any) -> Any:
            return process.call(running, f"/api/v1{path}", token=token, method="POST", body=body)

        post("/workers/define", {"workers": [{"name": "a", "driver": "fake"}]})
        post("/workers/mode", {"names": ["a"], "mode": "paused"})
        build = post("/builds", {"steps": [{"name": "s", "command": ["true"]}]})
        port = int(url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as waiting:
            path = f"/api/v1/builds/{build['id']}?wait_s=60"
            request = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
            waiting.sendall(request.encode())
            # Answered on another connection, so the first request was taken up before.
            assert get(f"{url}/healthz")
            hub.send_signal(signal.SIGTERM)
            answer = waiting.makefile("rb").read()
        errors = hub.communicate(timeout=60)[1]
    assert answer.startswith(b"HTTP/1.1 503")
    assert b"application/problem+json" in answer
    assert "Traceback" not in errors


class TestRefusals:
    """What the operator must change is one line on stderr and exit 2."""

    def test_port_in_use(self, cli: Cli) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            for command in ("start", "serve"):
                line = cli.refused(command, "--port", port)
                assert f"port {port} of 127.0.0.1: address already in use" in line

    def test_state_directory(self, cli: Cli, tmp_path: Path) -> None:
        cli.state_dir = tmp_path / "file" / "hub"
        (tmp_path / "file").touch()
        for command in ("start", "serve"):
            assert "cannot be written" in cli.refused(command)

    def test_database(self, cli: Cli, tmp_path: Path) -> None:
        (tmp_path / "not-a-database").write_text("hello " * 1000)
        newer = tmp_path / "newer.sqlite3"
        with closing(sqlite3.connect(newer)) as connection:
            connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
            connection.execute("INSERT INTO alembic_version VALUES ('9999')")
            connection.commit()
        for url, words in (
            ("mysql://u:hunter2@h/d", "database_url: must be"),
            (f"sqlite:///{tmp_path}/nowhere/hub.sqlite3", "there is no directory"),
            (f"sqlite:///{tmp_path}/not-a-database", "the database cannot be used"),
            (f"sqlite:///{newer}", "newer than this hub"),
        ):
            cli.environment["HOSTLER_DATABASE_URL"] = url
            line = cli.refused("start", "--port", "0")
            assert words in line
            assert "hunter2" not in line

    def test_a_second_serve(self, cli: Cli) -> None:
        cli.start()
        assert "a hub runs already" in cli.refused("serve", "--port", "0")

    def test_host(self, cli: Cli) -> None:
        assert "192.0.2.1" in cli.refused("serve", "--port", "0", "--host", "192.0.2.1")

    def test_usage(self, cli: Cli) -> None:
        assert cli("token", "create", "ci", "--role", "agent").returncode == 2
        assert cli("dance").returncode == 2
        # CVE-2024-23897: an argument with "@" never reads a file.
        (cli.state_dir.parent / "words").write_text("start")
        assert cli(f"@{cli.state_dir.parent}/words").returncode == 2


def test_the_database_url_is_in_no_argument(cli: Cli, tmp_path: Path) -> None:
    """V14: it may hold a password, and everybody can read arguments."""
    (tmp_path / "hunter2").mkdir()
    cli.environment["HOSTLER_DATABASE_URL"] = f"sqlite:///{tmp_path}/hunter2/hub.sqlite3"
    cli.start()
    with open(f"/proc/{cli.status()['pid']}/cmdline", "rb") as file:
        assert b"hunter2" not in file.read()


def test_looking_costs_no_framework() -> None:
    """`status` answers at once: neither the web framework nor the store is imported for it."""
    code = (
        "import sys; from hostler_hub.cli import main;"
        "main(['status', '--state-dir', '/nonexistent']);"
        "print([name for name in ('fastapi', 'uvicorn', 'sqlalchemy', 'pydantic')"
        " if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
