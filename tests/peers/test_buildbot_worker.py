"""A stock Buildbot worker serves our hub, as a permanent worker; none of our extension needed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from e2e.api import Api
from e2e.gates import Gate
from e2e.hub_process import HubProcess
from peers.buildbot_worker import StockWorker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.peer("buildbot")

PASSWORD = "correct horse"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    with HubProcess.running(tmp_path_factory.mktemp("hub") / "hub") as hub:
        yield hub


@pytest.fixture
async def api(hub: HubProcess) -> AsyncIterator[Api]:
    async with Api(hub.url, hub.token) as made:
        yield made


@pytest.fixture
def make_worker(hub: HubProcess, tmp_path: Path) -> Iterator[Callable[..., StockWorker]]:
    made: list[StockWorker] = []

    def make(name: str, password: str = PASSWORD) -> StockWorker:
        made.append(StockWorker(tmp_path / name, hub.port, name, password))
        return made[-1]

    yield make
    for worker in made:
        worker.kill()


@pytest.fixture
def make_gate(tmp_path: Path) -> Iterator[Callable[[], Gate]]:
    made: list[Gate] = []

    def make() -> Gate:
        made.append(Gate(tmp_path, f"gate-{len(made)}"))
        return made[-1]

    yield make
    for gate in made:
        gate.close()


async def define(api: Api, *names: str, **options: object) -> None:
    await api.define(*names, driver="permanent", password=PASSWORD, **options)


async def test_builds_run_and_fail_as_on_our_own_agent(
    api: Api, make_worker: Callable[..., StockWorker]
) -> None:
    await define(api, "stock")
    make_worker("stock").start()
    build = await api.submit(
        ["sh", "-c", 'echo out; echo err >&2; printf "%s" "$NAME"; echo made > file'],
        ["cat", "file"],
        ["sh", "-c", "exit 3"],
        ["echo", "never"],
        {"name": "always", "command": ["echo", "always"], "always_run": True},
        worker="stock",
        env={"NAME": "grün \N{SNOWMAN}"},
    )
    view = await api.ended(build)
    assert (view["state"], view["attempts"]) == ("failure", 1)
    assert [step["rc"] for step in view["steps"]] == [0, 0, 3, None, 0]
    log = await api.log(build)
    assert b"out\n" in log
    assert b"err\n" in log
    assert "grün \N{SNOWMAN}".encode() in log
    assert b"made\n" in await api.log(build, 1)
    # V10: its workspace is removed, so the next build starts from nothing.
    after = await api.ended(await api.submit(["sh", "-c", "! test -e file"], worker="stock"))
    assert after["state"] == "success"


async def test_long_output_arrives_whole_and_in_order(
    api: Api, make_worker: Callable[..., StockWorker]
) -> None:
    await define(api, "long")
    make_worker("long").start()
    build = await api.submit(["seq", "100000", "150000"], worker="long")
    assert (await api.ended(build))["state"] == "success"
    _, _, output = (await api.log(build)).partition(b" using PTY: False\n")
    numbers = [int(word) for word in output.split() if word.isdigit()]
    assert numbers == list(range(100_000, 150_001))


async def test_I05_a_cancelled_build_ends_its_command(
    api: Api, make_worker: Callable[..., StockWorker], make_gate: Callable[[], Gate]
) -> None:
    await define(api, "cancelled")
    make_worker("cancelled").start()
    gate = make_gate()
    build = await api.submit(gate.command, ["true"], worker="cancelled")
    job = await gate.entered()
    await api.cancel(build)
    view = await api.ended(build)
    assert view["state"] == "cancelled"
    assert [step["state"] for step in view["steps"]] == ["cancelled", "skipped"]
    assert not job.lives()
    after = await api.ended(await api.submit(["true"], worker="cancelled"))
    assert after["state"] == "success"


async def test_L21_a_killed_worker_costs_its_build_a_retry(
    hub: HubProcess,
    api: Api,
    make_worker: Callable[..., StockWorker],
    make_gate: Callable[[], Gate],
) -> None:
    """It cannot resume, so its build is lost with the connection, and run once more."""
    await define(api, "mortal")
    worker, gate = make_worker("mortal"), make_gate()
    worker.start()
    build = await api.submit(gate.command, worker="mortal")
    await gate.entered()
    await asyncio.to_thread(worker.kill)
    await hub.latent(api, "mortal")
    worker.start()
    await gate.entered()
    gate.open()
    view = await api.ended(build)
    assert (view["state"], view["attempts"], view["worker"]) == ("success", 2, "mortal")


async def test_W03_a_wrong_password_is_refused_until_it_is_right(
    hub: HubProcess, api: Api, make_worker: Callable[..., StockWorker]
) -> None:
    await api.define("guarded", driver="permanent", password="another")
    worker = make_worker("guarded")
    worker.start()
    await hub.logged(event="agent refused", status=401)
    assert not (await api.worker("guarded"))["attached"]
    await define(api, "guarded")
    assert (await api.ended(await api.submit(["true"], worker="guarded")))["state"] == "success"


async def test_limits_are_refused_which_a_stock_worker_cannot_honour(
    api: Api, make_worker: Callable[..., StockWorker]
) -> None:
    await define(api, "unlimited")
    make_worker("unlimited").start()
    limited = {"name": "limited", "command": ["true"], "limits": {"memory_mb": 64}}
    build = await api.submit(["true"], limited, ["true"], worker="unlimited")
    view = await api.ended(build)
    text = "a stock Buildbot worker cannot limit commands (memory_mb)"
    assert view["result_text"] == f"step limited: {text}"
    assert [step["state"] for step in view["steps"]] == ["success", "failure", "skipped"]
    assert view["steps"][1]["failure_reason"] == "not_started"
    assert f"{text}\n".encode() in await api.log(build, 1)
    after = await api.ended(await api.submit(["true"], worker="unlimited"))
    assert after["state"] == "success"


async def test_a_build_with_secrets_is_refused_as_it_would_log_them(
    hub: HubProcess, api: Api, make_worker: Callable[..., StockWorker]
) -> None:
    """It writes every message of its hub into twistd.log, variables and all."""
    directory = hub.state_dir / "build-secrets"
    directory.mkdir(mode=0o700)
    (directory / "token").write_text("swordfish")
    (directory / "policy.toml").write_text('[token]\nusers = ["admin"]\n')
    for path in directory.iterdir():
        path.chmod(0o600)
    await define(api, "leaky")
    worker = make_worker("leaky")
    worker.start()
    plain = await api.submit("true", worker="leaky", env={"SHOWN": "a-plain-variable"})
    assert (await api.ended(plain))["state"] == "success"
    assert "a-plain-variable" in worker.log
    secret = {"TOKEN": {"ref": "token"}}
    view = await api.ended(await api.submit("true", worker="leaky", secrets=secret))
    assert view["state"] == "exception"
    assert "stock Buildbot worker gets no secrets" in view["result_text"]
    assert "swordfish" not in worker.log
