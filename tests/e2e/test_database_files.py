"""Other programs at the hub's SQLite file: what the hub has accepted stays, whatever they do (V22).

A program that opens the file and closes it again does no harm; when one deletes or replaces it,
the hub says so and ends, and has accepted nothing that it could not keep.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import file_locks
import httpx2
import pytest
from e2e.api import Api

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from e2e.hub_process import HubProcess

BUILDS = "/api/v1/builds"
BUILD = {"steps": [{"name": "run", "command": "true"}], "requires": {"worker": "w"}}
KILLS = 6
CLIENTS = 4
# What each life of the hub accepts at least, and how long it then lasts at most.
ACCEPTED = 6
LONGEST_MORE_S = 0.3

# Opens and closes until its input ends; then tells how often it did.
READER = """
import contextlib, select, sqlite3, sys
rounds = 0
while not select.select([sys.stdin], [], [], 0)[0]:
    with contextlib.closing(sqlite3.connect(sys.argv[1])) as connection:
        with contextlib.suppress(sqlite3.OperationalError):  # a hub that starts has it for itself
            connection.execute("SELECT count(*) FROM builds").fetchall()
            rounds += 1
print(rounds)
"""


@pytest.fixture
def hub(make_hub: Callable[..., HubProcess]) -> HubProcess:
    made = make_hub()
    made.start()
    return made


def database(hub: HubProcess, suffix: str = "") -> Path:
    return hub.state_dir / f"hub.sqlite3{suffix}"


def look_with_another_program(hub: HubProcess) -> None:
    """Opens the database for reading and writing, reads a row and closes it."""
    program = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]);"
        "c.execute('SELECT 1 FROM workers').fetchone(); c.close()"
    )
    subprocess.run([sys.executable, "-c", program, str(database(hub))], check=True)


async def paused(api: Api) -> None:
    """A worker whose builds wait."""
    await api.define("w")
    await api.mode("w", "paused")


async def read_at_once(api: Api) -> None:
    """The hub connects for each of them."""
    await asyncio.gather(*(api.get("/builds?limit=500") for _ in range(3)))


async def test_the_hub_holds_its_locks_while_others_come_and_go(hub: HubProcess) -> None:
    def locks() -> list[set[str]]:
        return [file_locks.held(hub.pid, database(hub, suffix)) for suffix in ("", "-shm")]

    async with Api(hub.url, hub.token) as api:
        for _ in range(3):
            await read_at_once(api)
            await api.define("w")
            await asyncio.to_thread(look_with_another_program, hub)
            assert [kinds & {"READ"} for kinds in locks()] == [{"READ"}, {"READ"}]


async def test_a_build_accepted_after_another_program_closed_survives_kill_9(
    hub: HubProcess,
) -> None:
    async with Api(hub.url, hub.token) as api:
        await paused(api)
        await read_at_once(api)
        await asyncio.to_thread(look_with_another_program, hub)
        build = await api.submit("true", worker="w")
    await asyncio.to_thread(hub.kill)
    await asyncio.to_thread(hub.start)
    async with Api(hub.url, hub.token) as api:
        assert (await api.get(f"/builds/{build}"))["state"] == "queued"


@contextlib.contextmanager
def another_reader(hub: HubProcess) -> Iterator[None]:
    command = [sys.executable, "-c", READER, str(database(hub))]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            yield
            rounds, _ = process.communicate(timeout=60)
            assert int(rounds) > KILLS
        finally:
            process.kill()


class Submitter:
    """Submits builds one after the other, the same again when the hub died before its answer."""

    def __init__(self, name: str, hub: HubProcess) -> None:
        self._name = name
        self._hub = hub
        self.accepted: dict[str, str] = {}
        self.up = asyncio.Event()
        self.stopping = False
        self._sent = ""  # the last idempotency key, whether it was answered or not

    async def run(self, told: asyncio.Semaphore) -> None:
        while not self.stopping:
            await self.up.wait()
            async with Api(self._hub.url, self._hub.token) as api:
                with contextlib.suppress(httpx2.TransportError):  # the hub was killed
                    await self._submit(api, told)

    async def _submit(self, api: Api, told: asyncio.Semaphore) -> None:
        while not self.stopping and self.up.is_set():
            key = f"{self._name}-{len(self.accepted)}"
            again, self._sent = key == self._sent, key
            answer = await api.client.post(BUILDS, json=BUILD, headers={"Idempotency-Key": key})
            # A build that was accepted before its answer was lost is there already.
            assert answer.status_code in ({200, 201} if again else {201}), answer.text
            self.accepted[key] = answer.json()["id"]
            told.release()


@pytest.mark.timeout(300)
async def test_no_accepted_build_is_lost_under_random_kills_beside_another_reader(
    hub: HubProcess,
) -> None:
    seed = int(os.environ.get("HOSTLER_SEED") or random.SystemRandom().randrange(1_000_000))
    print(f"HOSTLER_SEED={seed}")
    dice = random.Random(seed)
    async with Api(hub.url, hub.token) as api:
        await paused(api)
    submitters = [Submitter(f"s{number}", hub) for number in range(CLIENTS)]
    told = asyncio.Semaphore(0)

    async def live_and_die() -> None:
        for submitter in submitters:
            submitter.up.set()
        for _ in range(ACCEPTED):
            await told.acquire()
        await asyncio.sleep(dice.uniform(0, LONGEST_MORE_S))  # the moment is what is tried
        for submitter in submitters:
            submitter.up.clear()
        await asyncio.to_thread(hub.kill)
        await asyncio.to_thread(hub.start)

    with another_reader(hub):
        async with asyncio.TaskGroup() as group:
            for submitter in submitters:
                group.create_task(submitter.run(told), name="submitter")
            for _ in range(KILLS):
                await live_and_die()
            for submitter in submitters:
                submitter.stopping = True
                submitter.up.set()
    accepted = {key: build for each in submitters for key, build in each.accepted.items()}
    print(f"{len(accepted)} builds accepted")
    assert len(accepted) >= KILLS * ACCEPTED
    async with Api(hub.url, hub.token) as api:
        missing = [
            key
            for key, build in accepted.items()
            if (await api.client.get(f"{BUILDS}/{build}")).status_code != 200
        ]
    assert missing == []


def delete(path: Path) -> None:
    path.unlink()


def replace(path: Path) -> None:
    other = path.with_name("replacement")
    other.write_bytes(path.read_bytes())
    other.rename(path)


LOSSES = [
    pytest.param(delete, "", "was deleted", id="deleted database"),
    pytest.param(replace, "", "was replaced by another file", id="replaced database"),
    pytest.param(delete, "-wal", "was deleted", id="deleted log"),
]


@pytest.mark.parametrize(("deed", "suffix", "words"), LOSSES)
async def test_the_hub_ends_with_a_word_when_a_file_is_lost_and_accepts_no_more(
    hub: HubProcess, deed: Callable[[Path], None], suffix: str, words: str
) -> None:
    async with Api(hub.url, hub.token) as api:
        await paused(api)
        deed(database(hub, suffix))
        ended = asyncio.create_task(hub.ended())
        answers: list[Any] = []
        with contextlib.suppress(httpx2.TransportError):  # it is gone
            while not ended.done():
                answers.append(await api.client.post(BUILDS, json=BUILD))
        assert await ended == 3
    assert {answer.status_code for answer in answers} <= {503}
    last_words = str(hub.log[-1]["event"])
    assert last_words.startswith(f"hostler-hub: {database(hub, suffix)} {words} while the hub")
    assert "start the hub again" in last_words
    assert not any("Traceback" in str(line["event"]) for line in hub.log)


async def test_a_hub_that_nobody_asks_notices_a_lost_file_too(hub: HubProcess) -> None:
    database(hub).unlink()
    assert await hub.ended(patience_s=20) == 3


async def test_what_was_accepted_before_the_log_was_deleted_is_there_again(
    hub: HubProcess,
) -> None:
    async with Api(hub.url, hub.token) as api:
        await paused(api)
        builds = [await api.submit("true", worker="w") for _ in range(5)]
    database(hub, "-wal").unlink()
    assert await hub.ended() == 3
    await asyncio.to_thread(hub.start)
    async with Api(hub.url, hub.token) as api:
        assert [(await api.get(f"/builds/{build}"))["id"] for build in builds] == builds
