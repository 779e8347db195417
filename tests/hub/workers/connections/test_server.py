"""Attached agents, real parts all around them: silence, rivals, strangers, and dead peers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from agent_peer import Peer

from hostler_agent.wire.extension import Handshake
from hostler_hub.app import running
from hostler_hub.runtime import stalls
from hostler_hub.runtime.clock import SystemClock
from hostler_hub.runtime.settings import Settings
from hostler_hub.runtime.tasks import Tasks
from hostler_hub.specs.worker import WorkerDefinition
from hostler_hub.web.hub import Hub
from hostler_hub.workers.agents import session
from hostler_hub.workers.views import WorkerView

PASSWORD = "correct horse"
DEADLINE_S = 60.0


async def turns() -> AsyncIterator[None]:
    """Everybody else's turn, again and again."""
    while True:
        yield
        await asyncio.sleep(0)


class House:
    """A hub, and the peers that come to it."""

    def __init__(self, hub: Hub, settings: Settings) -> None:
        self.hub = hub
        self.settings = settings
        self.tasks = Tasks()

    async def define(self, name: str = "p", **more: Any) -> None:
        given = {"driver": "permanent", "password": PASSWORD, **more}
        definition = WorkerDefinition.model_validate({"name": name, **given})
        await self.hub.definitions.define([definition], dry_run=False, by="ann")

    async def come(self, name: str = "p", password: str = PASSWORD, **peer: Any) -> Peer:
        """A peer that has its answer: attached, refused, or about to be closed."""
        made = Peer(Handshake(name, password, "s" * 43), **peer)
        self.tasks.spawn(self.hub.agents.serve(made.websocket()), f"peer {name}")
        async with asyncio.timeout(DEADLINE_S):
            await made.settled.wait()
        return made

    async def until(self, holds: Callable[[WorkerView], bool], name: str = "p") -> Any:
        async with asyncio.timeout(DEADLINE_S):
            async for _ in turns():
                if holds(self.hub.workers.view(name)):
                    break
        return self.hub.workers.view(name)

    async def said(self, event: str, name: str = "p") -> list[str]:
        """The causes of these events, once there is one."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                rows = await self.hub.workers.events(name, 50)
                causes = [row.cause for row in rows if row.event == event]
                if causes:
                    return causes


@asynccontextmanager
async def house_on(tmp_path: Path, **changes: Any) -> AsyncIterator[House]:
    patience = {"ping_interval_s": 0.05, "rival_deadline_s": 0.2, "shutdown_deadline_s": 60.0}
    settings = Settings(state_dir=tmp_path / "hub", port=1, **{**patience, **changes})
    settings.prepare_state_dir()
    async with running(settings, SystemClock()) as hub:
        house = House(hub, settings)
        yield house
    await house.tasks.aclose()


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with house_on(tmp_path) as made:
        yield made


def attached(view: WorkerView) -> bool:
    return bool(view.attached)


def gone(view: WorkerView) -> bool:
    return not view.attached


# --- silence ---------------------------------------------------------------------------------


async def test_A6_an_agent_that_is_silent_for_three_pings_is_disconnected(house: House) -> None:
    await house.define()
    peer = await house.come()
    await house.until(attached)
    await asyncio.wait_for(peer.was_asked.wait(), DEADLINE_S)
    peer.silent = True
    await asyncio.wait_for(peer.closed.wait(), DEADLINE_S)
    assert peer.close_code == 1011
    await house.until(gone)


async def test_N1_an_agent_that_takes_nothing_any_more_is_disconnected_all_the_same(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "CLOSE_S", 0.05)
    await house.define()
    peer = await house.come()
    await house.until(attached)
    peer.stuck = True
    await house.until(gone)
    peer.unstuck.set()


async def test_a_worker_s_own_interval_is_what_its_agent_is_asked_at(tmp_path: Path) -> None:
    async with house_on(tmp_path, ping_interval_s=0.02) as house:
        await house.define(keepalive_interval=3600)
        await house.define("q")
        slow, quick = await house.come(), await house.come("q")
        async with asyncio.timeout(DEADLINE_S):
            async for _ in turns():
                if quick.asked.count("keepalive") >= 5:
                    break
        assert slow.asked.count("keepalive") <= 1


async def test_A10_what_the_hub_itself_slept_through_is_no_silence(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub stands still between a question and its answer, again and again."""
    monkeypatch.setattr(stalls, "TOLERATED_S", 0.0)
    await house.define()
    peer = await house.come()
    await house.until(attached)
    peer.silent = True
    counted = house.hub.agents._controller.stalls  # type: ignore[attr-defined]
    for _ in range(10):
        peer.asked.clear()
        with counted.waiting():
            await asyncio.sleep(house.settings.ping_interval_s)
    assert not peer.closed.is_set()
    assert attached(house.hub.workers.view("p"))
    await asyncio.wait_for(peer.closed.wait(), DEADLINE_S)


# --- rivals ----------------------------------------------------------------------------------


async def test_A4_the_same_process_on_a_new_connection_replaces_its_old_one_at_once(
    house: House,
) -> None:
    await house.define(keepalive_interval=3600)
    old = await house.come()
    first = await house.until(attached)
    old.silent = True
    new = await house.come()
    await asyncio.wait_for(old.closed.wait(), DEADLINE_S)
    assert not new.closed.is_set()
    view = house.hub.workers.view("p")
    assert (view.attached, view.epoch) == (True, first.epoch)


@pytest.mark.parametrize(
    "other",
    [{"boot_id": "elsewhere"}, {"process": "another"}, {"boot_id": None}],
    ids=["machine", "process", "stock"],
)
async def test_A5_a_second_agent_is_refused_while_the_first_one_lives(
    house: House, other: dict[str, Any]
) -> None:
    await house.define()
    first = await house.come()
    view = await house.until(attached)
    second = await house.come(**other, client="198.51.100.9")
    await asyncio.wait_for(second.closed.wait(), DEADLINE_S)
    assert second.close_code == 1008
    (cause,) = await house.said("Refused")
    assert "198.51.100.9" in cause
    assert "192.0.2.7" in cause
    assert not first.closed.is_set()
    assert house.hub.workers.view("p").instance == view.instance


async def test_A5_V19_a_second_agent_is_refused_while_the_first_one_is_silent(
    house: House,
) -> None:
    """The first one may be stopped, and the second one a build that has its password."""
    await house.define(keepalive_interval=3600)
    first = await house.come()
    await house.until(attached)
    first.silent = True
    for _ in range(3):  # it may try as often as it likes
        second = await house.come(process="another")
        await asyncio.wait_for(second.closed.wait(), DEADLINE_S)
        assert second.close_code == 1008
    assert len(await house.said("Refused")) == 1
    view = house.hub.workers.view("p")
    assert (view.attached, set(view.incidents)) == (True, {"duplicate"})
    assert not first.closed.is_set()


async def test_a_stock_worker_s_reconnect_alarms_nobody_while_its_old_connection_is_silent(
    house: House,
) -> None:
    await house.define(keepalive_interval=3600)
    first = await house.come(boot_id=None)
    await house.until(attached)
    first.silent = True
    second = await house.come(boot_id=None)
    await asyncio.wait_for(second.closed.wait(), DEADLINE_S)
    assert (second.close_code, house.hub.workers.view("p").incidents) == (1008, {})


async def test_E9_a_second_agent_takes_the_place_of_one_whose_connection_closes(
    house: House,
) -> None:
    """That it has closed may become known only while its successor waits."""
    await house.define(keepalive_interval=3600)
    first = await house.come()
    await house.until(attached)
    first.silent = True
    coming = asyncio.create_task(house.come(process="another"))
    await asyncio.wait_for(first.was_asked.wait(), DEADLINE_S)
    first.hang_up()
    second = await coming
    assert not second.closed.is_set()
    view = await house.until(attached)
    assert view.incidents == {}


async def test_A10_a_first_agent_whose_answer_the_hub_slept_through_lives(tmp_path: Path) -> None:
    """The hub stands still between its question and the answer, for longer than it would wait."""
    async with house_on(tmp_path, rival_deadline_s=0.01) as house:
        await house.define(keepalive_interval=3600)
        first = await house.come()
        await house.until(attached)
        await asyncio.wait_for(first.was_asked.wait(), DEADLINE_S)
        answer, loop = first._answer, asyncio.get_running_loop()

        def answer_and_stall(frame: bytes) -> None:
            answer(frame)
            until = loop.time() + 2 * house.settings.rival_deadline_s
            while loop.time() < until:
                pass

        first._answer = answer_and_stall  # type: ignore[method-assign]
        second = await house.come(boot_id="elsewhere")
        await asyncio.wait_for(second.closed.wait(), DEADLINE_S)
        assert second.close_code == 1008
        assert not first.closed.is_set()


# --- strangers -------------------------------------------------------------------------------


async def test_strangers_get_one_answer_and_are_recorded(house: House) -> None:
    await house.define()
    for _ in range(2):
        wrong = await house.come(password="guess")
        nobody = await house.come("n" * 300, client="198.51.100.9")
    assert wrong.status == nobody.status == 401
    assert [(each.name, each.client, each.count) for each in house.hub.refusals.page(9)] == [
        ("n" * 100, "198.51.100.9", 2),
        ("p", "192.0.2.7", 2),
    ]
    assert await house.said("Refused") == ["from 192.0.2.7: unknown worker or wrong token"]


async def test_V14_a_password_by_reference_opens_and_others_do_not(house: House) -> None:
    secrets = house.settings.state_dir / "secrets"
    secrets.mkdir()
    (secrets / "build").write_text("first\n")
    await house.define(password={"file": "build"})
    assert (await house.come(password="second")).status == 401
    (secrets / "build").write_text("second\n")
    assert (await house.come(password="first")).status == 401
    assert (await house.come(password="second")).status == 101
    (secrets / "build").unlink()
    assert (await house.come(password="second", process="other")).status == 401


async def test_V14_a_password_in_the_hub_s_environment_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOSTLER_SECRET_P", "from the environment")
    async with house_on(tmp_path) as house:
        await house.define(password={"env": "HOSTLER_SECRET_P"})
        assert (await house.come(password="another")).status == 401
        assert (await house.come(password="from the environment")).status == 101


async def test_what_was_refused_is_known_to_the_next_hub(tmp_path: Path) -> None:
    async with house_on(tmp_path) as house:
        await house.come("nobody")
    async with house_on(tmp_path) as house:
        (row,) = house.hub.refusals.page(9)
        assert (row.name, row.count) == ("nobody", 1)


# --- dead peers ------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["stopped", "draining"])
async def test_V18_stopping_a_worker_waits_for_no_dead_peer(house: House, mode: str) -> None:
    await house.define(keepalive_interval=3600)
    peer = await house.come()
    await house.until(attached)
    peer.stuck = True
    await house.hub.workers.set_mode(
        ["p"], mode=mode, reason=None, by="ann", dry_run=False, until=None
    )
    view = await house.until(lambda view: view.state == "latent")
    assert not view.attached


async def test_V18_the_hub_stops_though_all_its_peers_are_dead(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    async with house_on(tmp_path, ping_interval_s=3600) as house:
        names = [f"p{number}" for number in range(10)]
        for name in names:
            await house.define(name)
        peers = [await house.come(name) for name in names]
        for name, peer in zip(names, peers, strict=True):
            await house.until(attached, name)
            peer.stuck = True
        began = loop.time()
    took_s = loop.time() - began
    assert took_s < len(peers) * session.CLOSE_S
    left = json.loads(house.settings.stop_file.read_text())
    assert (left["instances"], left["unclosed"]) == ([], [])
