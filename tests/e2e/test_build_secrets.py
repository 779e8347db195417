"""Secrets for builds, from their directory to a real step: it has them, and nothing else does."""

from __future__ import annotations

import base64
import json
import os
import signal
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import psycopg
import pytest
from e2e.api import Api, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from e2e.gates import Gate
    from e2e.hub_process import HubProcess

VALUE = "correct-horse/battery+staple"
SECRETS = {"TOKEN": {"ref": "token"}, "KEY": {"ref": "token", "as": "file"}}
SHOWN = [VALUE.encode(), base64.b64encode(VALUE.encode()), VALUE.replace("/", "%2F").encode()]


def grant(hub: HubProcess, *users: str) -> None:
    directory = hub.state_dir / "build-secrets"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    (directory / "token").write_text(VALUE + "\n")
    (directory / "policy.toml").write_text(f"[token]\nusers = {json.dumps(users)}\n")
    for path in directory.iterdir():
        path.chmod(0o600)


def shows(data: bytes) -> bool:
    return any(form in data for form in SHOWN)


def files_that_show_it(directory: Path) -> list[Path]:
    files = (path for path in directory.rglob("*") if path.is_file())
    kept = [path for path in files if "build-secrets" not in path.parts]
    return [path for path in kept if shows(path.read_bytes())]


def dump(hub: HubProcess, database_url: str | None) -> bytes:
    """Every row of the hub's database, as text."""
    if database_url is None:
        with sqlite3.connect(f"file:{hub.state_dir}/hub.sqlite3?mode=ro", uri=True) as database:
            return "\n".join(database.iterdump()).encode()
    with psycopg.connect(database_url.replace("+psycopg", "")) as database:
        tables = database.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        rows = [database.execute(f'SELECT t::text FROM "{name}" t') for (name,) in tables]  # type: ignore[arg-type]
        return "\n".join(text for each in rows for (text,) in each).encode()


async def test_V14_a_secret_reaches_its_steps_and_is_kept_and_shown_nowhere(
    make_hub: Callable[..., HubProcess],
    make_gate: Callable[[], Gate],
    database_url: str | None,
) -> None:
    hub, gate = make_hub(database_url), make_gate()
    grant(hub, "admin")
    hub.start()
    script = (
        f'test "$(cat "$KEY")" = "{VALUE[:7]}""{VALUE[7:]}" || exit 9;'
        'echo "$TOKEN"; cat "$KEY" >&2; printf "u:%s" "$TOKEN" | base64; cp "$KEY" kept'
    )
    async with Api(hub.url, hub.token) as api:
        await api.define("w")
        build = await api.submit(
            {"name": "use", "command": script, "log_environment": True},
            {"name": "later", "command": "cat kept; rm kept"},
            {"name": "held", "command": gate.command},
            {"name": "property", "set_property": {"name": "p", "command": 'echo "p=$TOKEN"'}},
            {"name": "missing", "command": ["/no/such/" + VALUE[:3]], "halt_on_failure": False},
            worker="w",
            secrets=SECRETS,
        )
        await gate.entered()
        everybody = psutil.process_iter(["cmdline"])
        assert not [p for p in everybody if shows(" ".join(p.info["cmdline"] or ()).encode())]
        gate.open()
        view = await api.ended(build)
        logs = [await api.log(build, index) for index in range(5)]
        assert [step["rc"] for step in view["steps"]] == [0, 0, 0, 0, 127], logs
        assert b"  TOKEN=***\n" in logs[0]
        assert logs[0].count(b"***\n") >= 3
        assert b"***" in logs[1]
        assert view["properties"]["p"] == "p=***"
        assert view["spec"]["secrets"]["TOKEN"] == {"ref": "token", "as": "env"}
        assert not [log for log in logs if shows(log)]
        assert not shows(json.dumps(view).encode())
        shown = [await api.get(path) for path in ("/builds", "/workers", "/decisions")]
        assert not shows(json.dumps(shown).encode())
    assert files_that_show_it(hub.state_dir) == []
    assert not shows(dump(hub, database_url))
    hub.stop()
    assert not shows(json.dumps(hub.log).encode())


async def test_a_right_is_checked_at_submission_and_again_at_the_start(
    shared_hub: HubProcess, api: Api
) -> None:
    step = {"name": "s", "command": "true", "secrets": SECRETS}
    spec = {"steps": [step], "requires": {"worker": "granted"}}
    await api.define("granted")
    grant(shared_hub)
    refused = await api.client.post("/api/v1/builds", json=spec)
    assert refused.status_code == 403
    assert "'token' may not be used by 'admin'" in refused.json()["detail"]
    assert "policy.toml" in refused.json()["detail"]
    grant(shared_hub, "admin")
    await api.mode("granted", "paused")
    build = await api.submit(step, worker="granted")
    grant(shared_hub, "somebody")
    await api.mode("granted", "active")
    view = await api.ended(build)
    assert view["state"] == "exception"
    assert "'token' may not be used by 'admin'" in view["result_text"]
    assert view["steps"][0]["failure_reason"] == "not_started"


def secret_file(job_pid: int) -> Path:
    return Path(psutil.Process(job_pid).environ()["KEY"])


async def test_K7_a_hub_that_is_killed_resumes_a_step_without_sending_its_secrets_again(
    make_hub: Callable[..., HubProcess], make_gate: Callable[[], Gate]
) -> None:
    hub, gate = make_hub(), make_gate()
    grant(hub, "admin")
    hub.start()
    async with Api(hub.url, hub.token) as api:
        await api.define("w")
        build = await api.submit(
            {"name": "s", "command": gate.command, "secrets": SECRETS}, worker="w"
        )
        job = await gate.entered()
        assert job._process is not None
        path = secret_file(job._process.pid)
        hub.kill()
        grant(hub)  # withdrawn: what runs has it already
        hub.start()
        await gate.send(f"it is {VALUE}\n".encode())
        gate.open()
        view = await api.ended(build)
        assert (view["state"], view["attempts"]) == ("success", 1), view["result_text"]
        assert await api.output(build) == b"it is ***\n"
    assert not path.exists()
    hub.stop()


@pytest.mark.parametrize("end", ["cancel", "agent"])
async def test_a_secret_file_is_gone_with_its_step_and_with_its_instance(
    shared_hub: HubProcess, api: Api, make_gate: Callable[[], Gate], end: str
) -> None:
    worker, gate = f"files-{end}", make_gate()
    grant(shared_hub, "admin")
    await api.define(worker)
    step = {"name": "s", "command": gate.command, "secrets": SECRETS}
    build = await api.submit(step, worker=worker, retry={"on_loss": 0})
    job = await gate.entered()
    assert job._process is not None
    path = secret_file(job._process.pid)
    assert path.read_text() == VALUE + "\n"
    if end == "cancel":
        await api.cancel(build)
    else:
        os.kill(shared_hub.agent_of(worker), signal.SIGKILL)
    await api.ended(build)

    async def is_there() -> bool:
        return path.exists()

    await until(is_there, lambda there: not there)
