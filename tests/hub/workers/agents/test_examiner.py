"""The gate, real parts all around it: peers that lack things, lie, stall, die and come back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from agent_peer import Peer

from hostler_agent.wire.extension import Handshake
from hostler_hub.app import running
from hostler_hub.runtime.clock import SystemClock
from hostler_hub.runtime.settings import Settings
from hostler_hub.runtime.tasks import Tasks
from hostler_hub.specs.build import BuildSpec
from hostler_hub.specs.expectations import Difference
from hostler_hub.specs.worker import WorkerDefinition
from hostler_hub.store.decisions import Filter
from hostler_hub.web.hub import Hub
from hostler_hub.workers.agents import examiner
from hostler_hub.workers.views import WorkerView

PASSWORD = "correct horse"
DEADLINE_S = 60.0
OLD = {"git": {"path": "/bin/git", "version": "2.20.1", "problem": None}}
NEW = {"git": {"path": "/bin/git", "version": "2.39.5", "problem": None}}
EXPECTS = {"tools": {"git": ">=2.30"}}
DIFFERS = "not as expected: git: expected >=2.30 → found 2.20.1 (/bin/git)"


async def turns() -> AsyncIterator[None]:
    """Everybody else's turn, again and again."""
    while True:
        yield
        await asyncio.sleep(0)


class Yard:
    """A hub with one permanent worker, `p`, and the peers that come as it."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.tasks = Tasks()

    async def define(self, expects: dict[str, Any] | None = None, **more: Any) -> None:
        given = {"name": "p", "driver": "permanent", "password": PASSWORD, "expects": expects}
        definition = WorkerDefinition.model_validate({**given, **more})
        await self.hub.definitions.define([definition], dry_run=False, by="ann")

    async def come(self, **peer: Any) -> Peer:
        made = Peer(Handshake("p", PASSWORD, "s" * 43), **peer)
        self.tasks.spawn(self.hub.agents.serve(made.websocket()), "peer")
        async with asyncio.timeout(DEADLINE_S):
            await made.settled.wait()
        return made

    def view(self) -> WorkerView:
        return self.hub.workers.view("p")

    async def until(self, holds: Callable[[WorkerView], Any]) -> WorkerView:
        async with asyncio.timeout(DEADLINE_S):
            async for _ in turns():
                if holds(self.view()):
                    break
        return self.view()

    async def shut(self) -> WorkerView:
        return await self.until(lambda view: view.quarantine)

    async def open(self) -> WorkerView:
        return await self.until(lambda view: view.admission.state == "met")

    async def resume(self) -> None:
        await self.hub.workers.set_mode(
            ["p"], mode="active", reason="mended", by="ann", dry_run=False
        )


@asynccontextmanager
async def yard_on(tmp_path: Path) -> AsyncIterator[Yard]:
    settings = Settings(state_dir=tmp_path / "hub", port=1, shutdown_deadline_s=60.0)
    settings.prepare_state_dir()
    async with running(settings, SystemClock()) as hub:
        yard = Yard(hub)
        yield yard
    await yard.tasks.aclose()


@pytest.fixture
async def yard(tmp_path: Path) -> AsyncIterator[Yard]:
    async with yard_on(tmp_path) as made:
        yield made


async def test_a_machine_that_is_as_expected_gets_work(yard: Yard) -> None:
    await yard.define(EXPECTS | {"clock_skew_s": 60, "disk_free_mb": 100})
    await yard.come(tools=NEW, clock_s=time.time(), facts={"disk_free_mb": 500})
    view = await yard.open()
    assert view.quarantine is None
    assert view.model_dump()["admission"]["tools"] == NEW
    assert view.admission.clock_skew_s == pytest.approx(0, abs=60)
    assert view.why.not_used == "no queued build fits it"


async def test_a_machine_that_differs_is_quarantined_and_says_so_everywhere(yard: Yard) -> None:
    await yard.define(EXPECTS)
    await yard.come(tools=OLD)
    view = await yard.shut()
    assert view.quarantine.reason == DIFFERS
    assert view.last_error == DIFFERS
    assert view.admission.state == "unmet"
    assert view.admission.differences == [Difference("git", ">=2.30", "2.20.1 (/bin/git)")]
    assert DIFFERS in view.why.not_used
    assert list(view.incidents) == ["unfit"]
    events = await yard.hub.workers.events("p", 10)
    assert [row.cause for row in events if row.event == "Examined"] == [DIFFERS]
    page = await yard.hub.decisions.page(Filter("p", kind="quarantine"), 10, None)
    (decided,) = page.items
    assert (decided.rule, decided.text) == ("not_as_expected", DIFFERS)


async def test_why_a_build_waits_names_the_difference(yard: Yard) -> None:
    await yard.define(EXPECTS)
    await yard.come(tools=OLD)
    await yard.shut()
    spec = BuildSpec.model_validate({"steps": [{"name": "s", "command": ["true"]}]})
    build, _ = await yard.hub.builds.submit(spec, by="ann", idempotency_key=None)
    waiting = await yard.hub.builds.get(build.id)
    assert DIFFERS in waiting.why
    (one,) = waiting.why_workers
    assert "mend what failed and resume it" in one.remedies[0]


async def test_resuming_after_a_repair_asks_again(yard: Yard) -> None:
    """Not trusted: the second resume, after the repair, is what opens the gate."""
    await yard.define(EXPECTS)
    peer = await yard.come(tools=OLD)
    first = await yard.shut()
    await yard.resume()
    again = await yard.until(
        lambda view: view.quarantine and view.quarantine.until != first.quarantine.until
    )
    assert again.quarantine.delay_s == 2 * first.quarantine.delay_s
    peer.tools = NEW
    await yard.resume()
    view = await yard.open()
    assert (view.quarantine, view.incidents) == (None, {})


async def test_facts_are_asked_for_anew_with_each_look(yard: Yard) -> None:
    await yard.define({"disk_free_mb": 1000})
    peer = await yard.come(facts={"disk_free_mb": 10})
    assert "free disk: expected at least 1000 MB → found 10" in (
        (await yard.shut()).quarantine.reason
    )
    peer.facts["disk_free_mb"] = 2000
    await yard.resume()
    view = await yard.open()
    assert view.facts["disk_free_mb"] == 2000


async def test_A9_a_clock_that_is_off_is_told_with_its_direction(yard: Yard) -> None:
    await yard.define({"clock_skew_s": 5})
    await yard.come(clock_s=time.time() - 3600)
    reason = (await yard.shut()).quarantine.reason
    assert "clock: expected at most 5 s from the hub's → found 3" in reason
    assert reason.endswith("behind")


async def test_a_stock_worker_is_admitted_where_it_can_answer(yard: Yard) -> None:
    await yard.define({"facts": ["system == posix"]})
    peer = await yard.come(boot_id=None)
    await yard.open()
    assert "start_command" not in peer.asked


async def test_a_stock_worker_is_quarantined_for_what_it_cannot_tell(yard: Yard) -> None:
    await yard.define(EXPECTS | {"clock_skew_s": 5, "facts": ["system == posix"]})
    peer = await yard.come(boot_id=None)
    reason = (await yard.shut()).quarantine.reason
    assert reason == (
        "not as expected: "
        "clock: expected at most 5 s from the hub's → "
        "found nothing: a foreign agent (4.3.0) does not tell; "
        "git: expected >=2.30 → found nothing: a foreign agent (4.3.0) does not tell"
    )
    assert "start_command" not in peer.asked


async def test_tools_are_asked_only_of_workers_that_are_to_have_some(yard: Yard) -> None:
    await yard.define({"disk_free_mb": 1})
    peer = await yard.come(tools=NEW, facts={"disk_free_mb": 5})
    await yard.open()
    assert "start_command" not in peer.asked


@pytest.mark.parametrize("nonsense", ["2.39", 7, {"git": "2.39"}, {"git": {"path": []}}])
async def test_an_agent_that_answers_nonsense_is_not_as_expected(yard: Yard, nonsense: Any) -> None:
    await yard.define(EXPECTS)
    await yard.come(tools=nonsense)
    reason = (await yard.shut()).quarantine.reason
    assert "agent: expected an answer → found tool_versions" in reason


async def test_an_agent_that_tells_of_other_tools_has_not_told_of_this_one(yard: Yard) -> None:
    await yard.define(EXPECTS)
    await yard.come(tools={"svn": {"path": "/bin/svn", "version": "9"}})
    assert "found none on the agent's PATH" in (await yard.shut()).quarantine.reason


async def test_A6_an_agent_that_answers_too_late_is_not_as_expected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examiner, "EXAM_S", 0.2)
    async with yard_on(tmp_path) as yard:
        await yard.define(EXPECTS, keepalive_interval=3600)
        await yard.come(tools=NEW, completes=False)
        reason = (await yard.shut()).quarantine.reason
        assert reason == "not as expected: agent: expected an answer within 0.2 s → found none"


async def test_E9_an_agent_that_dies_while_it_is_asked_is_asked_again_when_it_is_back(
    yard: Yard,
) -> None:
    await yard.define(EXPECTS)
    dying = await yard.come(tools=NEW, completes=False)
    await asyncio.wait_for(dying.was_started.wait(), DEADLINE_S)
    view = yard.view()
    assert (view.admission.state, view.why.not_used) == (
        "asking",
        "its machine is being compared with what is expected of it",
    )
    dying.hang_up()
    view = await yard.until(lambda view: not view.attached)
    assert view.quarantine is None
    await yard.come(tools=OLD, process="another")
    await yard.shut()


async def test_a_definition_may_change_while_it_is_asked(yard: Yard) -> None:
    """The answer to the old question is none to the new one."""
    await yard.define(EXPECTS)
    peer = await yard.come(tools=OLD, completes=False)
    await asyncio.wait_for(peer.was_started.wait(), DEADLINE_S)
    peer.completes = True
    await yard.define({"tools": {"git": ">=2.20"}})
    view = await yard.open()
    assert view.quarantine is None


async def test_a_definition_that_expects_more_is_compared_at_once(yard: Yard) -> None:
    await yard.define()
    await yard.come(tools=OLD)
    view = await yard.until(lambda view: view.attached)
    assert view.admission is None
    await yard.define(EXPECTS)
    assert (await yard.shut()).quarantine.reason == DIFFERS


async def test_K5_a_hub_that_ends_in_between_asks_anew(tmp_path: Path) -> None:
    async with yard_on(tmp_path) as yard:
        await yard.define(EXPECTS)
        peer = await yard.come(tools=NEW, completes=False)
        await asyncio.wait_for(peer.was_started.wait(), DEADLINE_S)
    async with yard_on(tmp_path) as yard:
        assert yard.view().admission.state == "unknown"
        await yard.come(tools=OLD)
        assert (await yard.shut()).quarantine.reason == DIFFERS
    async with yard_on(tmp_path) as yard:
        assert yard.view().quarantine.reason == DIFFERS
        await yard.come(tools=NEW)
        view = await yard.open()
        assert view.incidents == {}
