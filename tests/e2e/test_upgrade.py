"""A database that an earlier version left: opened, shown as it was, and gone on with.

What made it stands beside it. Its hub was killed: a build ran, others waited, people had leases,
and instances of every driver were up, whose providers do not answer any more.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from e2e.api import Api, until
from e2e.hub_process import HubProcess

from hostler_hub.store import schema
from hostler_hub.store.engine import Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

DATABASE = Path(__file__).parents[1] / "hub" / "store" / "databases" / "schema-0002.sqlite3"
UNANSWERED = {
    "posix": ["ssh-direct", "ssh-tunnel", "docker-plain", "docker-cache", "cloud-up"],
    "nt": ["windows-detached", "windows-service"],
}
"""Workers whose providers do not answer any more, by their systems."""
DRIVERS = {
    "local": ["local-busy", "local-idle", "local-paused"],
    "ssh": ["ssh-direct", "ssh-tunnel"],
    "docker": ["docker-cache", "docker-plain"],
    "ec2": ["cloud-spare", "cloud-up"],
    "winrm": ["windows-detached", "windows-service"],
    "permanent": ["own-closed", "own-missing"],
    "fake": ["fake-failing", "fake-leased", "fake-released", "fake-stopped", "fake-up"],
}


def copied(directory: Path) -> Path:
    """The database as if its hub had been killed just now: else leases would have ended, messages
    been given up, and decisions been forgotten. Returns the state directory."""
    directory.mkdir()
    shutil.copy(DATABASE, directory / "hub.sqlite3")
    with contextlib.closing(sqlite3.connect(directory / "hub.sqlite3")) as c, c:
        ((then,),) = c.execute("SELECT max(at) FROM events")
        later_s = time.time() - then
        names = "SELECT m.name, i.name FROM sqlite_master m, pragma_table_info(m.name) i"
        for table, column in c.execute(f"{names} WHERE i.type = 'FLOAT'").fetchall():
            if column != "backoff_s":  # all others are instants
                c.execute(f'UPDATE "{table}" SET "{column}" = "{column}" + ?', (later_s,))
        for field in ("asked_at", "granted_at", "until"):
            moved = f"json_set(person, '$.{field}', json_extract(person, '$.{field}') + ?)"
            c.execute(f"UPDATE workers SET person = {moved} WHERE person IS NOT NULL", (later_s,))
    return directory


@contextlib.contextmanager
def resumed(directory: Path) -> Iterator[HubProcess]:
    hub = HubProcess(copied(directory), shutdown_deadline_s="1")
    try:
        hub.start()
        yield hub
    finally:
        hub.close()


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    """Which the tests that use it only look at."""
    with resumed(tmp_path_factory.mktemp("upgrade") / "hub") as made:
        yield made


@pytest.fixture
async def api(hub: HubProcess) -> AsyncIterator[Api]:
    async with Api(hub.url, hub.token) as made:
        yield made


async def test_the_schema_is_today_s(tmp_path: Path) -> None:
    state_dir = copied(tmp_path / "hub")
    async with Store(f"sqlite:///{state_dir / 'hub.sqlite3'}", exclusive=True) as store:
        assert await store.read(schema.current) == schema.HEAD


async def test_every_worker_is_there_with_its_definition(api: Api) -> None:
    page = await api.get("/workers")
    workers = {each["name"]: each for each in page["items"]}
    by_driver: dict[str, list[str]] = {}
    for name, worker in workers.items():
        by_driver.setdefault(worker["driver"], []).append(name)
    assert by_driver == DRIVERS
    idle = workers["local-idle"]
    assert (idle["labels"], idle["description"]) == (["linux"], "kept warm")
    assert idle["properties"].items() >= {"site": "lab", "cores": 2}.items()
    given = idle["definition"]
    assert (given["priority"], given["group"]) == (5, "warm")
    assert given["build_wait_timeout"] == 86400
    assert given["expects"]["tools"] == {"sh": "*"}
    assert given["driver_options"] == {"environment": {"FLAVOUR": "plain"}}
    assert workers["ssh-tunnel"]["definition"]["driver_options"]["tunnel"] is True
    assert workers["windows-service"]["definition"]["driver_options"]["start"] == "service"
    assert workers["cloud-spare"]["definition"]["driver_options"]["at_end"] == "stop"
    assert workers["own-missing"]["definition"]["password_ref"] == {"file": "own"}
    assert workers["own-closed"]["definition"]["has_password"] is True
    modes = {name: each["mode"] for name, each in workers.items() if each["mode"] != "active"}
    assert modes == {"local-paused": "paused", "own-closed": "paused", "fake-stopped": "stopped"}
    paused = workers["local-paused"]
    assert (paused["mode_reason"], paused["mode_by"]) == ("until tomorrow", "admin")
    assert paused["definition"]["max_uses"] == 50


async def test_V3_instances_whose_providers_do_not_answer_are_kept(api: Api) -> None:
    with contextlib.closing(sqlite3.connect(DATABASE)) as connection:
        rows = "SELECT name, instance_id, epoch FROM workers WHERE state = 'substantiated'"
        known = {name: (instance, epoch) for name, *(instance, epoch) in connection.execute(rows)}
    for system, names in UNANSWERED.items():
        for name in names:
            worker = await api.worker(name)
            assert (worker["instance"], worker["epoch"]) == known[name]
            assert (worker["state"], worker["uses"]) == ("substantiated", 1)
            assert worker["facts"]["system"] == system
    events = (await api.get("/workers/ssh-direct/events"))["items"]
    assert "substantiated" in {each["to"] for each in events}


async def test_past_builds_have_their_results_steps_and_logs(api: Api) -> None:
    builds = {each["name"]: each for each in (await api.get("/builds"))["items"]}
    on = ["local-idle", "ssh-direct", "ssh-tunnel", "docker-plain", "docker-cache", "cloud-up"]
    on += ["cloud-spare", "fake-up", "windows-detached", "windows-service"]
    states = {name: builds[name]["state"] for name in ("failure", "cancelled", "twice", "lost")}
    assert list(states.values()) == ["failure", "cancelled", "success", "exception"]
    for name in on:
        assert builds[f"on {name}"]["state"] == "success"
        assert builds[f"on {name}"]["worker"] == name
        assert builds[f"on {name}"]["submitted_by"] == "ben"
        if name != "fake-up":  # whose agent says nothing
            assert b"hello from a build" in await api.log(builds[f"on {name}"]["id"])
    assert builds["twice"]["attempts"] == 2
    assert builds["lost"]["result_text"].startswith("lost its worker 1 times")
    assert builds["cancelled"]["result_text"] == "cancelled by admin: enough"


async def test_the_steps_and_files_of_a_build_that_failed(api: Api) -> None:
    (failure,) = (each for each in (await api.get("/builds"))["items"] if each["name"] == "failure")
    build = await api.get(f"/builds/{failure['id']}")
    assert build["result_text"] == "step fail ended with rc 3"
    steps = [(each["name"], each["state"], each["rc"]) for each in build["steps"]]
    assert steps == [
        ("make", "success", 0),
        ("keep", "success", 0),
        ("keep all", "success", 0),
        ("fail", "failure", 3),
        ("never", "skipped", None),
    ]
    assert build["steps"][3]["receipt"] is not None
    assert b"it fails\n" in await api.log(failure["id"], 3)
    files = await api.get(f"/builds/{failure['id']}/artifacts")
    assert [(each["path"], each["size_bytes"]) for each in files["items"]] == [
        ("all/1", 2),
        ("report.txt", 5),
    ]


async def test_builds_that_wait_or_ran_are_taken_up(api: Api) -> None:
    builds = {each["name"]: each for each in (await api.get("/builds"))["items"]}
    waiting = builds["waiting"]
    assert (waiting["state"], waiting["properties"]["branch"]) == ("queued", "main")
    running = builds["running"]
    assert (running["attempts"], running["finished_at"]) == (1, None)
    assert running["spec"]["steps"][0]["command"][:2] == ["sh", "-c"]


async def test_leases_of_people(api: Api) -> None:
    held = (await api.get("/leases?worker=ssh-direct"))["items"][0]
    assert (held["state"], held["holder"], held["reason"]) == ("held", "admin", "debugging")
    assert (held["ttl_s"], held["keep"]) == (86400, False)
    assert held["connection"]["handle"]["directory"].endswith("/ssh-machine")
    (waiting,) = (await api.get("/leases?worker=local-busy"))["items"]
    assert (waiting["holder"], waiting["keep"]) == ("admin", True)
    ended = (await api.get("/leases?ended=true"))["items"]
    reasons = {each["worker"]: each["end_reason"] for each in ended}
    assert reasons["fake-released"] == "released"
    # A fake's instance is in its hub's memory alone, and whoever had it has it no more.
    assert set(reasons) == {"fake-released", "fake-leased"}


async def test_groups_with_what_was_defined(api: Api) -> None:
    groups = {each["name"]: each for each in (await api.get("/groups"))["items"]}
    assert set(groups) == {"warm", "empty"}
    warm = groups["warm"]["definition"]
    assert (warm["max_instances"], warm["failures_allowed"]) == (40, 3)
    (nights,) = warm["schedules"]
    assert (nights["name"], nights["time_zone"]) == ("nights", "Europe/Berlin")


async def test_incidents_and_what_was_told_of_them(api: Api) -> None:
    incidents = {each["worker"]: each for each in (await api.get("/incidents"))["items"]}
    missing = await api.get(f"/incidents/{incidents['own-missing']['id']}")
    assert (missing["kind"], missing["closed_at"]) == ("missing", None)
    assert missing["evidence"]["seen"] == "dark"
    told = [(each["about"], each["recipient"], each["state"]) for each in missing["deliveries"]]
    assert ("opened", "ann@example.org", "sent") in told
    assert ("evidence", "team@example.org", "pending") in told
    assert incidents["own-closed"]["close_reason"] == "closed by admin: sold"
    worker = await api.get("/workers/own-missing")
    assert worker["incidents"] == {"missing": missing["id"]}
    assert worker["missing"] is not None


async def test_tokens_refusals_evidence_and_decisions(api: Api) -> None:
    tokens = {each["name"]: each["role"] for each in (await api.get("/tokens"))["items"]}
    assert tokens == {"admin": "admin", "ann": "operator", "ben": "submitter", "eve": "viewer"}
    (refusal,) = (await api.get("/refusals"))["items"]
    assert (refusal["name"], refusal["count"]) == ("stranger", 1)
    (evidence,) = (await api.get("/workers/fake-failing/evidence"))["items"]
    assert evidence["texts"]["console"].startswith("fake: last words of")
    decisions = (await api.get("/decisions?limit=500"))["items"]
    assert {"start", "match"} <= {each["kind"] for each in decisions}


async def test_what_waited_is_run_and_what_ran_is_run_again(tmp_path: Path) -> None:
    """Local workers get agents anew; the fake's bring theirs."""
    with resumed(tmp_path / "hub") as hub:
        async with Api(hub.url, hub.token) as api:
            builds = {each["name"]: each["id"] for each in (await api.get("/builds"))["items"]}
            (lease,) = (await api.get("/leases?worker=local-busy"))["items"]
            await api.post(f"/leases/{lease['id']}/release", {"force": True})
            await hub.latent(api, "local-busy")
            # Who lost its instance is in quarantine for a while, but for a person's word.
            await api.mode("local-busy", "active")
            await api.mode("local-paused", "active")
            waited = await api.ended(builds["waiting"])
            assert (waited["state"], waited["worker"]) == ("success", "local-paused")
            assert b"hello from a build" in await api.log(waited["id"])
            assert (await api.ended(builds["waits for a person"]))["state"] == "success"
            running = builds["running"]
            again = await until(
                lambda: api.get(f"/builds/{running}"), lambda view: view["attempts"] == 2
            )
            assert again["worker"] == "local-busy"
            await api.log_says(running, b"begun\n")
            await api.cancel(running)
            assert (await api.ended(running))["state"] == "cancelled"
