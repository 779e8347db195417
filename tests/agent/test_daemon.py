"""The agent as a whole, against a hub's stand-in and with commands that start no process."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, ClassVar

import pytest

from hostler_agent.commands import CommandError
from hostler_agent.wire import extension, messages
from hostler_agent.wire.errors import RemoteError, WireError
from hostler_agent.wire.extension import CommandReport, CommandTerms, HubSettings
from hostler_agent.wire.messages import UpdateReadFile

TERMS = CommandTerms("lease", 1).body()


class Talk:
    """Says each of `lines` and ends."""

    started: ClassVar[list[str]] = []

    def __init__(self, context: Any, args: dict[str, Any]) -> None:
        self.context = context
        self.args = args
        self.interrupts: list[str] = []
        self.ending = asyncio.Event()

    async def run(self) -> None:
        Talk.started.append(self.context.command_id)
        for line in self.args.get("lines", []):
            await self.context.update([["line", line]])
        await self.finish()
        await self.context.update([["rc", 0]])

    async def finish(self) -> None:
        pass

    def interrupt(self, why: str) -> None:
        self.interrupts.append(why)
        self.ending.set()


class Wait(Talk):
    """Waits until it is interrupted."""

    async def finish(self) -> None:
        await self.ending.wait()
        await self.context.update([["interrupted", self.interrupts[0]]])


class Deaf(Talk):
    """Does not hear interrupts; only cancelling ends it."""

    async def finish(self) -> None:
        await asyncio.Event().wait()


class Fail(Talk):
    async def finish(self) -> None:
        raise CommandError("no such thing")


class Crash(Talk):
    async def finish(self) -> None:
        raise ZeroDivisionError


class Fetch(Talk):
    async def finish(self) -> None:
        await self.ending.wait()
        try:
            data = await self.context.request(UpdateReadFile(self.context.command_id, 10))
            await self.context.update([["data", data]])
        except WireError as error:
            await self.context.update([["lost", str(error)]])


class Report(Talk):
    """Tells what it was given."""

    async def finish(self) -> None:
        context = self.context
        await context.update([["raw", context.raw], ["workdir", context.workdir]])
        await context.update([["max_line_length", context.settings.max_line_length]])
        await context.update([["containment", context.containment.name]])


COMMANDS = {kind.__name__.lower(): kind for kind in (Talk, Wait, Deaf, Fail, Crash, Fetch, Report)}


@pytest.fixture(autouse=True)
def _forget_starts() -> None:
    Talk.started.clear()


@pytest.fixture
def start(start_agent):
    async def start(hub: Any, **options: Any) -> Any:
        return await start_agent(hub, COMMANDS, **options)

    return start


def lines(count: int) -> list[list[Any]]:
    return [["line", str(number)] for number in range(count)]


async def talk(connection: Any, command_id: str, count: int = 3, name: str = "talk") -> None:
    said = [str(number) for number in range(count)]
    await connection.start(command_id, name, lines=said, hostler=TERMS)


async def test_a_command_reports_in_order_and_completes(hub, start) -> None:
    await start(hub)
    connection = await hub.attached()
    await talk(connection, "c1", 100)
    assert await hub.completed("c1") is None
    assert hub.updates["c1"] == [*lines(100), ["rc", 0]]


async def test_the_info_serves_a_stock_master_and_ours(hub, start, tmp_path: Path) -> None:
    """C03"""
    await start(hub)
    connection = await hub.attached()
    assert connection.info["basedir"] == str(tmp_path / "work")
    assert connection.info["worker_commands"]["talk"] == "1.0"
    assert connection.info["worker_commands"]["hostler"] == "2"
    assert connection.report.commands == ()
    assert connection.report.facts["numcpus"] >= 1


async def test_V20_the_info_says_what_separates_builds_from_the_agent(hub, start, slots) -> None:
    for isolation, options in (
        ("none", {}),
        ("container", {"is_container": True}),
        ("user", {"is_container": True, "slots": slots}),
    ):
        agent = await start(hub, **options)
        connection = await hub.attached()
        assert connection.report.facts["isolation"] == connection.info["isolation"] == isolation
        agent.daemon.stop()
        await agent.ended()


async def test_a_command_runs_in_the_slot_of_its_lease(hub, master, start_agent) -> None:
    """A stock master knows no leases: there it is the builder's, by its directory."""
    keys: list[str | None] = []

    class Note(Talk):
        async def finish(self) -> None:
            keys.append(self.context.slot_key)

    await start_agent(hub, {"note": Note})
    connection = await hub.attached()
    await connection.start("c1", "note", workdir="builds/x", hostler=TERMS)
    await connection.start("c2", "note")
    assert await hub.completed("c2") is None
    await start_agent(master, {"note": Note})
    connection = await master.attached()
    paths: tuple[dict[str, Any], ...] = (
        {"workdir": "linux/build"},
        {"path": "linux/../other/file"},
        {"paths": ["linux", "x"]},
        {"from_path": "/elsewhere"},
        {},
    )
    for number, args in enumerate(paths):
        await connection.start(str(number), "note", **args)
        await master.completed(str(number))
    assert keys == ["lease", None, "linux", "other", "linux", "..", "."]


async def test_the_slots_end_with_the_lease_and_with_the_agent(hub, start, clock, slots) -> None:
    """A7, V10: what runs again elsewhere is not left here."""
    agent = await start(hub, slots=slots)
    connection = await hub.attached()
    await talk(connection, "c1", name="wait")
    await hub.stop()
    await clock.advance(271)
    await asyncio.wait_for(agent.daemon._roster.idle(), 60)
    assert slots.ended == ["all"]
    agent.daemon.stop()
    await agent.ended()
    assert slots.ended == ["all", "closed"]


@pytest.mark.parametrize(
    ("isolation", "lasts"), [("user", True), ("container", False), ("none", False)]
)
async def test_E9_V20_the_session_lasts_where_builds_cannot_read_it(
    hub, start, tmp_path: Path, slots, isolation: str, lasts: bool
) -> None:
    options = {"slots": slots if isolation == "user" else None}
    options["is_container"] = isolation == "container"
    instance = "01JABCDEFGHJKMNPQRSTVWXYZ0"
    first = await start(hub, instance=instance, epoch=7, **options)
    await hub.attached()
    first.daemon.stop()
    await first.ended()
    await start(hub, instance=instance, epoch=7, **options)
    await hub.attached()
    assert (hub.handshakes[0] == hub.handshakes[1]) is lasts
    secrets = hub.handshakes[0].session.encode()
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and secrets in path.read_bytes()]
    assert bool(kept) is lasts
    assert (hub.handshakes[0].instance, hub.handshakes[0].epoch) == (instance, 7)
    assert len(hub.handshakes[0].session) == 43


async def test_a_latent_worker_is_warm_for_the_build_that_waits(hub, start) -> None:
    agent = await start(hub, instance="01J0000000000000000000000A", epoch=1)
    await hub.attached()
    assert agent.containment.calls == ["sweep", "warm_up"]


async def test_what_an_earlier_agent_left_is_swept_first(hub, start) -> None:
    agent = await start(hub)
    await hub.attached()
    assert agent.containment.calls == ["sweep"]
    agent.daemon.stop()
    await agent.ended()
    assert agent.containment.calls == ["sweep", "aclose"]


async def test_a_command_gets_its_context(hub, start, tmp_path: Path) -> None:
    await start(hub)
    connection = await hub.attached()
    await connection.start("c1", "report", hostler=TERMS)
    await connection.start("c2", "report")
    await hub.completed("c1")
    await hub.completed("c2")
    expected = {
        "raw": True,
        "workdir": str(tmp_path / "work"),
        "max_line_length": 4096,
        "containment": "fake",
        "rc": 0,
    }
    assert dict(hub.updates["c1"]) == expected
    assert dict(hub.updates["c2"]) == {**expected, "raw": False}


async def test_no_command_before_the_settings(hub, start) -> None:
    hub.sends_settings = False
    await start(hub)
    connection = await hub.attached()
    with pytest.raises(RemoteError, match="set_worker_settings must come before"):
        await talk(connection, "c1")
    await connection.send_settings()
    await talk(connection, "c1")
    await hub.completed("c1")


async def test_a_broken_newline_re_is_refused(hub, start) -> None:
    await start(hub)
    connection = await hub.attached()
    settings = messages.SetWorkerSettings(65536, 1, "(", 4096)
    with pytest.raises(RemoteError, match="newline_re"):
        await connection.request(settings)


async def test_an_unknown_command_is_refused(hub, start) -> None:
    await start(hub)
    with pytest.raises(RemoteError, match="'format_disk' does not exist"):
        await (await hub.attached()).start("c1", "format_disk")


@pytest.mark.parametrize(
    ("name", "failure"), [("fail", "no such thing"), ("crash", "ZeroDivisionError")]
)
async def test_a_failed_command_says_why(hub, start, name: str, failure: str) -> None:
    await start(hub)
    await (await hub.attached()).start("c1", name)
    assert await hub.completed("c1") == failure


async def test_a_start_that_is_repeated_starts_nothing(hub, start) -> None:
    """K7: the acknowledgement was lost."""
    await start(hub)
    connection = await hub.attached()
    await talk(connection, "c1", name="wait")
    await talk(connection, "c1", name="wait")
    await connection.interrupt("c1")
    await hub.completed("c1")
    await talk(connection, "c1", name="wait")
    assert Talk.started == ["c1"]
    assert len(hub.completes["c1"]) == 1


async def test_an_interrupted_command_still_completes(hub, start) -> None:
    await start(hub)
    connection = await hub.attached()
    await talk(connection, "c1", 0, name="wait")
    await connection.interrupt("c1")
    assert await hub.completed("c1") is None
    assert hub.updates["c1"] == [["interrupted", "a test wants it"], ["rc", 0]]


async def test_interrupts_of_the_dead_and_the_unknown(hub, start) -> None:
    """A13: twice, after the end, and of nobody: answered, and no harm done."""
    await start(hub)
    connection = await hub.attached()
    await talk(connection, "c1", 0, name="wait")
    await connection.interrupt("c1")
    await connection.interrupt("c1")
    await hub.completed("c1")
    await connection.interrupt("c1")
    with pytest.raises(RemoteError, match="there is no command c9"):
        await connection.interrupt("c9")
    await talk(connection, "c2")
    await hub.completed("c2")


async def test_a_resumed_command_loses_nothing(hub, start) -> None:
    """A6, K8: what was not acknowledged comes again, in order; the command never noticed."""
    await start(hub)
    connection = await hub.attached()
    hub.holds_answers = True
    await talk(connection, "c1", 5, name="wait")
    await hub.until(lambda hub: len(hub.updates["c1"]) == 5)
    connection.held = connection.held[:2]  # these two are durable
    await connection.release()
    await connection.request(messages.Keepalive())
    connection.cut()

    hub.holds_answers = False
    hub.updates.clear()
    hub.hostler = HubSettings(lease_ttl_s=300, resume=("c1",))
    connection = await hub.attached()
    assert connection.report.commands == (CommandReport("c1", "running"),)
    await connection.interrupt("c1")
    assert await hub.completed("c1") is None
    assert hub.updates["c1"][:3] == lines(5)[2:]
    assert [name for name, _ in hub.updates["c1"][3:]] == ["interrupted", "rc"]
    assert Talk.started == ["c1"]


async def test_a_result_waits_for_the_hub_to_come_back(hub, start) -> None:
    """K9: it finished while nobody listened, and is done, not lost."""
    await start(hub)
    connection = await hub.attached()
    hub.holds_answers = True
    await talk(connection, "c1", 2)
    await hub.completed("c1")
    connection.cut()

    hub.holds_answers = False
    hub.completes.clear()
    hub.updates.clear()
    hub.hostler = HubSettings(lease_ttl_s=300, resume=("c1",))
    connection = await hub.attached()
    assert connection.report.commands == (CommandReport("c1", "done"),)
    assert await hub.completed("c1") is None
    assert hub.updates["c1"] == [*lines(2), ["rc", 0]]
    connection.cut()

    connection = await hub.attached()
    assert connection.report.commands == ()
    assert len(hub.completes["c1"]) == 1


async def test_a_command_that_is_not_resumed_is_ended_without_a_word(hub, start) -> None:
    await start(hub)
    connection = await hub.attached()
    hub.holds_answers = True
    await talk(connection, "c1", name="wait")
    await talk(connection, "c2", name="wait")
    await talk(connection, "c3")
    await hub.completed("c3")
    connection.cut()

    hub.holds_answers = False
    hub.updates.clear()
    hub.completes.clear()
    hub.hostler = HubSettings(lease_ttl_s=300, resume=("c2",))
    connection = await hub.attached()
    await connection.interrupt("c2")
    await hub.completed("c2")
    with pytest.raises(RemoteError, match="there is no command c1"):
        await connection.interrupt("c1")
    assert set(hub.updates) == {"c2"}
    assert set(hub.completes) == {"c2"}


async def test_settings_that_come_again_end_nothing(master, start) -> None:
    """Buildbot's master sends them whenever it is reconfigured."""
    await start(master)
    connection = await master.attached()
    await talk(connection, "1", 2, name="wait")
    await connection.send_settings()
    await connection.interrupt("1")
    assert await master.completed("1") is None
    assert master.updates["1"][:2] == lines(2)


async def test_a_stock_master_that_disconnects_gets_its_commands_killed(master, start) -> None:
    """A16: it calls the build lost, and would run it again beside ours."""
    agent = await start(master)
    connection = await master.attached()
    await talk(connection, "1", name="wait")
    await master.until(lambda hub: len(hub.updates["1"]) == 3)
    connection.cut()
    connection = await master.attached()
    await agent.daemon._roster.idle()
    await talk(connection, "1", 1)  # a restarted master counts from 1 again
    assert await master.completed("1") is None
    assert Talk.started == ["1", "1"]
    assert master.updates["1"] == [*lines(3), *lines(1), ["rc", 0]]


async def test_without_the_hub_the_jobs_end_before_the_lease(hub, start, clock) -> None:
    """A7: at 270 s of 300, counted from the last contact."""
    agent = await start(hub)
    connection = await hub.attached()
    await talk(connection, "c1", name="wait")
    await hub.stop()
    await clock.advance(269)
    assert agent.daemon._roster.reports() == (CommandReport("c1", "running"),)
    await clock.advance(2)
    await asyncio.wait_for(agent.daemon._roster.idle(), 60)
    assert agent.daemon._roster.reports() == ()


async def test_after_a_suspension_nothing_is_reported_for_the_old_lease(hub, start, clock) -> None:
    """A8"""
    agent = await start(hub)
    connection = await hub.attached()
    await talk(connection, "c1", 1, name="wait")
    await hub.until(lambda hub: hub.updates["c1"])
    clock.jump(1000)
    await connection.interrupt("c1")  # it would report now
    await connection.request(messages.Keepalive())
    assert hub.updates["c1"] == lines(1)
    assert not hub.completes["c1"]
    await asyncio.wait_for(agent.daemon._roster.idle(), 60)
    with pytest.raises(RemoteError, match=extension.LOST):  # the hub learns it when it asks
        await talk(connection, "c1", 1, name="wait")


async def test_a_flood_is_held_back(hub, start) -> None:
    """E11, V15: 4 MiB unacknowledged, then the command waits."""
    agent = await start(hub)
    connection = await hub.attached()
    hub.holds_answers = True
    line = "x" * 64 * 1024
    await connection.start("c1", "talk", lines=[line] * 100, hostler=TERMS)
    await hub.until(lambda _: len(connection.held) == 32)
    assert agent.daemon._outbox.unacknowledged_bytes <= 4 * 2**20
    assert len(hub.updates["c1"]) == 32
    hub.holds_answers = False
    await connection.release()
    await hub.completed("c1")
    assert len(hub.updates["c1"]) == 101


async def test_an_update_the_hub_refuses_is_not_sent_for_ever(hub, start) -> None:
    def refuse_first(message: messages.Message) -> None:
        if isinstance(message, messages.Update) and message.args == [["line", "0"]]:
            raise LookupError("stale epoch")

    hub.answer = refuse_first
    agent = await start(hub)
    await talk(await hub.attached(), "c1", 2)
    assert await hub.completed("c1") is None
    await asyncio.wait_for(agent.daemon._outbox.drained(), 60)
    assert hub.updates["c1"] == [*lines(2), ["rc", 0]]


async def test_a_hub_that_answers_no_more_is_left_and_found_again(hub, start, clock) -> None:
    """N1: a request's deadline of 60 s ends the connection, not the command."""
    await start(hub)
    connection = await hub.attached()
    hub.holds_answers = True
    await talk(connection, "c1", 1, name="wait")
    await hub.until(lambda _: connection.held)
    hub.hostler = HubSettings(lease_ttl_s=300, resume=("c1",))
    hub.holds_answers = False
    clock.jump(60)
    await clock.advance(0)
    connection = await hub.attached()
    await connection.interrupt("c1")
    assert await hub.completed("c1") is None


async def test_transfers_ask_the_hub_and_fail_with_the_connection(hub, start) -> None:
    hub.answer = lambda message: b"data" if isinstance(message, UpdateReadFile) else None
    await start(hub)
    connection = await hub.attached()
    await connection.start("c1", "fetch", hostler=TERMS)
    await connection.interrupt("c1")
    await hub.completed("c1")
    assert hub.updates["c1"] == [["data", b"data"], ["rc", 0]]


async def test_a_transfer_fails_when_there_is_no_hub(hub, start) -> None:
    agent = await start(hub)
    connection = await hub.attached()
    await connection.start("c1", "fetch", hostler=TERMS)
    hub.hostler = HubSettings(lease_ttl_s=300, resume=("c1",))
    hub.holds_answers = True
    await connection.interrupt("c1")
    await hub.until(lambda _: connection.held)
    hub.holds_answers = False
    connection.cut()
    await hub.completed("c1")
    assert hub.updates["c1"] == [["lost", "the connection to the hub is lost"], ["rc", 0]]
    assert agent.containment.calls == ["sweep"]


async def test_shutdown_is_answered_and_ends_everything(hub, start) -> None:
    agent = await start(hub)
    connection = await hub.attached()
    await talk(connection, "c1", name="wait")
    assert await connection.request(messages.Shutdown()) is None
    await agent.ended()
    assert agent.containment.calls == ["sweep", "aclose"]
    assert not hub.completes["c1"]
    assert len(hub.handshakes) == 1


async def test_an_order_to_go_away_ends_everything(hub, start) -> None:
    """A2: 410 on the way back in."""
    agent = await start(hub, instance="01JABCDEFGHJKMNPQRSTVWXYZ0", epoch=7)
    connection = await hub.attached()
    await talk(connection, "c1", name="wait")
    hub.refusals = [(410, {})]
    connection.cut()
    await agent.ended()
    # An instance's agent prepares itself for its first command, too.
    assert agent.containment.calls == ["sweep", "warm_up", "aclose"]
    assert len(hub.handshakes) == 2


async def test_close_code_4410_ends_everything(hub, start) -> None:
    agent = await start(hub)
    await (await hub.attached()).socket.close(4410)
    await agent.ended()
    assert len(hub.handshakes) == 1


async def test_a_command_that_hears_nothing_is_cancelled(hub, start) -> None:
    hub.hostler = HubSettings(lease_ttl_s=300, go_away_grace_s=0)
    agent = await start(hub)
    await talk(await hub.attached(), "c1", name="deaf")
    agent.daemon.stop()
    await agent.ended()


async def test_finish_lets_the_running_end_and_takes_no_more(hub, start) -> None:
    """E16, P19: SIGTERM."""
    agent = await start(hub)
    connection = await hub.attached()
    await talk(connection, "c1", 1, name="wait")
    agent.daemon.finish()
    with pytest.raises(RemoteError, match="stopping and takes no more commands"):
        await talk(connection, "c2")
    await talk(connection, "c1", 1, name="wait")  # known: K7 holds until the end
    assert not agent.task.done()
    await connection.interrupt("c1")
    await agent.ended()
    assert hub.completes["c1"] == [None]


async def test_finish_waits_until_the_results_are_acknowledged(hub, start) -> None:
    agent = await start(hub)
    connection = await hub.attached()
    hub.holds_answers = True
    await talk(connection, "c1", 1)
    await hub.completed("c1")
    agent.daemon.finish()
    await connection.request(messages.Keepalive())
    assert not agent.task.done()
    await connection.release()
    await agent.ended()


async def test_finish_twice_ends_at_once(hub, start) -> None:
    agent = await start(hub)
    await talk(await hub.attached(), "c1", name="wait")
    agent.daemon.finish()
    agent.daemon.finish()
    await agent.ended()
    assert not hub.completes["c1"]


async def test_an_idle_agent_finishes_at_once(hub, start) -> None:
    agent = await start(hub)
    await hub.attached()
    agent.daemon.finish()
    await agent.ended()


async def test_stopping_before_the_hub_was_ever_there(hub, start) -> None:
    hub.refusals = [(503, {"Retry-After": "60"})]
    agent = await start(hub)
    await hub.until(lambda hub: hub.handshakes)
    agent.daemon.finish()
    await agent.ended()
