"""The hub's ends of transfers, and what becomes of files: whole and durable, or not there (N3)."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import io
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hub.builds.artifacts.tars import archive

from hostler_agent.wire import messages
from hostler_agent.wire.errors import ProtocolError
from hostler_hub.builds.artifacts import transfers
from hostler_hub.builds.artifacts.exchange import Exchange
from hostler_hub.builds.artifacts.files import Files
from hostler_hub.builds.artifacts.store import Artifacts
from hostler_hub.builds.command import CommandRun
from hostler_hub.builds.errors import TransferRefused
from hostler_hub.builds.logs import StepKey
from hostler_hub.builds.quotas import Account, Kind, Limits, Quotas
from hostler_hub.builds.step_kinds import ReceiveDirectory, ReceiveFile, SendFile, Wanted
from hostler_hub.builds.views import StoredFileView
from hostler_hub.errors import InsufficientStorage, NotFound, TooLarge
from hostler_hub.runtime.virtual_clock import VirtualClock
from hostler_hub.store import artifacts as rows
from hostler_hub.store import builds, stored_files
from hostler_hub.store.engine import Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

BUILD = "01K8Z9Q8Y3N6V4T2R0P9M7K5J3"
FIRST = StepKey(BUILD, 1, 0)
ID = "command"


def write(data: bytes) -> messages.Message:
    return messages.UpdateUploadFileWrite(ID, data)


def pack(data: bytes) -> messages.Message:
    return messages.UpdateUploadDirectoryWrite(ID, data)


CLOSE = messages.UpdateUploadFileClose(ID)
UNPACK = messages.UpdateUploadDirectoryUnpack(ID)


@dataclass
class Desk:
    """An exchange on a real store, and what lies in its directories."""

    exchange: Exchange
    store: Store
    root: Path
    threads: ThreadPoolExecutor

    @property
    def account(self) -> Account:
        return self.exchange.quotas.account("test")

    def open(self, wanted: Wanted) -> transfers.Transfer:
        return self.exchange.open(wanted, self.account)

    async def put(self, *data: bytes) -> StoredFileView:
        return await self.exchange.files.store(chunks(*data), self.account)

    async def contents(self) -> dict[str, bytes]:
        """The artifacts that are listed, and what each holds."""
        found = {}
        for item in (await self.exchange.artifacts.page(BUILD, 100, None)).items:
            _, file = await self.exchange.artifacts.open(BUILD, item.path)
            with file:
                found[item.path] = file.read()
        return found

    def files(self, below: str = "artifacts") -> dict[str, bytes]:
        base = self.root / below
        return {
            str(path.relative_to(base)): path.read_bytes()
            for path in base.rglob("*")
            if path.is_file()
        }

    async def settled(self) -> None:
        """What was handed to the threads before is done."""
        loop = asyncio.get_running_loop()
        barrier = [loop.run_in_executor(self.threads, lambda: None) for _ in range(8)]
        await asyncio.gather(*barrier)

    async def attempt(self, number: int) -> None:
        """The build is at this attempt now."""

        def change(c: Any) -> None:
            c.execute(builds.builds.update().values(attempts=number))

        await self.store.write(change)


def row() -> dict[str, Any]:
    return {
        "id": BUILD,
        "name": None,
        "state": "running",
        "spec": {},
        "priority": 0,
        "submitted_by": "test",
        "submitted_at": 0.0,
        "attempts": 1,
    }


@pytest.fixture
async def desk(database_url: str, tmp_path: Path) -> AsyncIterator[Desk]:
    async with Store(database_url) as store:
        await store.write(builds.insert, row())
        threads = ThreadPoolExecutor(1)
        artifacts = Artifacts(tmp_path / "artifacts", store, VirtualClock(1000.0), threads)
        files = Files(tmp_path / "files", store, VirtualClock(1000.0), threads)
        made = Desk(Exchange(artifacts, files, Quotas()), store, tmp_path, threads)
        yield made
        await made.settled()
        assert not any(name.startswith("staging") for name in made.files())
        assert not any(name.startswith("staging") for name in made.files("files"))
        threads.shutdown()
        artifacts.close()
        files.close()


async def upload(desk: Desk, name: str, data: bytes, step: StepKey = FIRST) -> Any:
    wanted = ReceiveFile(name, 1000)
    transfer = desk.open(wanted)
    try:
        for start in range(0, len(data), 10):
            assert await transfer.take(write(data[start : start + 10])) is None
        await transfer.take(CLOSE)
        return await desk.exchange.keep(transfer, wanted, step)
    finally:
        transfer.discard()


async def upload_tree(desk: Desk, name: str, data: bytes, step: StepKey = FIRST) -> Any:
    wanted = ReceiveDirectory(name, None)
    transfer = desk.open(wanted)
    try:
        await transfer.take(pack(data))
        await transfer.take(UNPACK)
        return await desk.exchange.keep(transfer, wanted, step)
    finally:
        transfer.discard()


# --- files ----------------------------------------------------------------------------------------


async def test_a_file_is_staged_and_then_there(desk: Desk) -> None:
    wanted = ReceiveFile("a/b", 1000)
    transfer = desk.open(wanted)
    await transfer.take(write(b"one "))
    await transfer.take(write(b"two"))
    assert [name.partition("/")[0] for name in desk.files()] == ["staging"]
    await transfer.take(CLOSE)
    await transfer.take(messages.UpdateUploadFileUtime(ID, 5.0, 1234567890.0))
    assert (await desk.exchange.artifacts.page(BUILD, 10, None)).items == []
    digest = hashlib.sha256(b"one two").hexdigest()
    stored = {"path": "a/b", "size_bytes": 7, "sha256": digest}
    assert await desk.exchange.keep(transfer, wanted, FIRST) == [stored]
    transfer.discard()
    ((place, data),) = desk.files().items()
    assert (place.rpartition("/")[0], data) == (f"{BUILD}/1", b"one two")
    assert "b" not in place.split("/")
    page = await desk.exchange.artifacts.page(BUILD, 10, None)
    more = {"modified_at": "2009-02-13T23:31:30.000Z", "stored_at": "1970-01-01T00:16:40.000Z"}
    assert page.model_dump() == {"items": [{**stored, **more, "step": 0}], "next": None}
    view, file = await desk.exchange.artifacts.open(BUILD, "a/b")
    with file:
        assert (view.sha256, file.read()) == (digest, b"one two")


@pytest.mark.parametrize("ending", ["cut", "never begun", "discarded twice"])
async def test_N3_a_cut_upload_leaves_nothing(desk: Desk, ending: str) -> None:
    wanted = ReceiveFile("f", 1000)
    transfer = desk.open(wanted)
    if ending != "never begun":
        await transfer.take(write(b"half of it"))
    with pytest.raises(TransferRefused, match="not say that the file is complete"):
        await desk.exchange.keep(transfer, wanted, FIRST)
    transfer.discard()
    transfer.discard()
    await desk.settled()
    assert desk.files() == {}
    with pytest.raises(ProtocolError):
        await transfer.take(write(b"more"))


async def test_N3_a_killed_hub_leaves_nothing_either(desk: Desk, tmp_path: Path) -> None:
    """Its successor clears what was staged."""
    transfer = desk.open(ReceiveFile("f", 1000))
    await transfer.take(write(b"half of it"))
    tree = desk.open(ReceiveDirectory("d", None))
    await tree.take(pack(archive(("a/b", b"x"))[:2000]))
    assert len(desk.files()) == 2
    with ThreadPoolExecutor(1) as threads:
        artifacts = Artifacts(tmp_path / "artifacts", desk.store, VirtualClock(), threads)
        artifacts.close()
    assert desk.files() == {}
    transfer.discard()
    tree.discard()


async def test_a_file_is_replaced_whole_and_a_directory_is_not(desk: Desk) -> None:
    await upload(desk, "f", b"old")
    await upload(desk, "f", b"new", StepKey(BUILD, 1, 3))
    assert list(desk.files().values()) == [b"new"]
    (item,) = (await desk.exchange.artifacts.page(BUILD, 10, None)).items
    assert (item.step, item.size_bytes) == (3, 3)
    for name in ("f/below", "f/below/it"):
        with pytest.raises(TransferRefused, match="there is an artifact where"):
            await upload(desk, name, b"x")
    await upload(desk, "d/g", b"x")
    with pytest.raises(TransferRefused, match="where d or a directory of it"):
        await upload(desk, "d", b"x")


async def test_one_byte_past_the_limit(desk: Desk) -> None:
    wanted = ReceiveFile("f", 10)
    transfer = desk.open(wanted)
    await transfer.take(write(b"x" * 10))
    with pytest.raises(TransferRefused, match="larger than 10 bytes"):
        await transfer.take(write(b"y"))
    transfer.discard()


@pytest.mark.parametrize("name", ["../x", "/x", "a//b", ""])
async def test_names_that_lead_elsewhere(desk: Desk, name: str) -> None:
    """The names of a pattern's matches come from the worker."""
    with pytest.raises(TransferRefused):
        await upload(desk, name, b"x")
    with pytest.raises(TransferRefused):
        await upload_tree(desk, name, archive(("f", b"x")))
    with pytest.raises(NotFound):
        await desk.exchange.artifacts.open(BUILD, name)


# --- directories ----------------------------------------------------------------------------------


async def test_a_directory_is_there_at_once_and_may_grow(desk: Desk) -> None:
    stored = await upload_tree(desk, "out", archive(("a/b", b"1"), ("c", b"2"), ("e", None)))
    assert [file["path"] for file in stored] == ["out/a/b", "out/c"]
    await upload_tree(desk, "out", archive(("a/b", b"3"), ("a/d", b"4")))
    await upload_tree(desk, "out/a", archive(("f", b"5")))
    expected = {"a/b": b"3", "c": b"2", "a/d": b"4", "a/f": b"5"}
    assert await desk.contents() == {f"out/{name}": data for name, data in expected.items()}
    assert sorted(desk.files().values()) == [b"2", b"3", b"4", b"5"]
    page = await desk.exchange.artifacts.page(BUILD, 2, None)
    assert [item.path for item in page.items] == ["out/a/b", "out/a/d"]
    page = await desk.exchange.artifacts.page(BUILD, 10, page.next)
    assert [item.path for item in page.items] == ["out/a/f", "out/c"]


@pytest.mark.parametrize("data", [archive(("../f", b"x")), archive(("f", b"x" * 600))[:700]])
async def test_what_cannot_be_unpacked_fails_with_a_text(desk: Desk, data: bytes) -> None:
    with pytest.raises(TransferRefused, match="cannot be unpacked"):
        await upload_tree(desk, "d", data)
    await desk.settled()
    assert desk.files() == {}


async def test_names_together_are_within_the_limits(desk: Desk) -> None:
    deep = "/".join("d" * 60)
    with pytest.raises(TransferRefused, match="deeper than 64"):
        await upload_tree(desk, "a/b/c/d/e", archive((deep, b"x")))


# --- attempts -------------------------------------------------------------------------------------


async def test_a_second_attempt_starts_clean(desk: Desk) -> None:
    artifacts = desk.exchange.artifacts
    await upload(desk, "f", b"first")
    await desk.attempt(2)
    assert (await artifacts.page(BUILD, 10, None)).items == []
    with pytest.raises(NotFound):
        await artifacts.open(BUILD, "f")
    await upload(desk, "g", b"second", StepKey(BUILD, 2, 0))
    await artifacts.forget_before(BUILD, 2, desk.account)
    ((place, data),) = desk.files().items()
    assert (place.startswith(f"{BUILD}/2/"), data) == (True, b"second")
    assert [item.path for item in (await artifacts.page(BUILD, 10, None)).items] == ["g"]
    await artifacts.forget_before(
        "01K8Z9Q8Y3N6V4T2R0P9M7K5ZZ", 3, desk.account
    )  # one that gave nothing


async def test_what_is_not_there(desk: Desk) -> None:
    with pytest.raises(NotFound, match="no build"):
        await desk.exchange.artifacts.page("01K8Z9Q8Y3N6V4T2R0P9M7K5ZZ", 10, None)
    await upload(desk, "f", b"x")
    (place,) = desk.files()
    (desk.root / "artifacts" / place).unlink()
    with pytest.raises(NotFound, match="removed from the hub's disk"):
        await desk.exchange.artifacts.open(BUILD, "f")


# --- what goes to agents --------------------------------------------------------------------------


async def chunks(*data: bytes) -> AsyncIterator[bytes]:
    for each in data:
        yield each


async def read(transfer: transfers.Transfer, length: int) -> Any:
    return await transfer.take(messages.UpdateReadFile(ID, length))


async def test_N4_a_stored_file_is_read_to_its_end_and_that_is_empty_bytes(desk: Desk) -> None:
    stored = await desk.put(b"one ", b"", b"two")
    digest = hashlib.sha256(b"one two").hexdigest()
    assert stored == StoredFileView(sha256=digest, size_bytes=7)
    assert await desk.put(b"one two") == stored
    await desk.settled()
    assert desk.files("files") == {f"{digest[:2]}/{digest}": b"one two"}
    wanted = SendFile(None, digest)
    transfer = desk.open(wanted)
    assert [await read(transfer, 5) for _ in range(2)] == [b"one t", b"wo"]
    with pytest.raises(TransferRefused, match="has not read all of it"):
        await desk.exchange.keep(transfer, wanted, FIRST)
    assert await read(transfer, 5) == b""
    assert await desk.exchange.keep(transfer, wanted, FIRST) == [stored.model_dump()]
    await transfer.take(messages.UpdateReadFileClose(ID))
    with pytest.raises(ProtocolError):  # single use
        await read(transfer, 5)


async def test_text_and_emptiness_are_files_like_any_other(desk: Desk) -> None:
    for text in ("gr\N{SNOWMAN}n", ""):
        transfer = desk.open(SendFile(text, None))
        data = await read(transfer, 100)
        assert data == text.encode()
        assert await read(transfer, 100) == b""
        transfer.discard()
    with pytest.raises(ProtocolError):
        await read(desk.open(SendFile("x", None)), 0)


async def test_a_damaged_file_is_not_passed_off_as_whole(desk: Desk) -> None:
    digest = (await desk.put(b"one two")).sha256
    (desk.root / "files" / digest[:2] / digest).write_bytes(b"one tvo")
    transfer = desk.open(SendFile(None, digest))
    assert await read(transfer, 100) == b"one tvo"
    with pytest.raises(TransferRefused, match="damaged"):
        await read(transfer, 100)
    transfer.discard()
    (desk.root / "files" / digest[:2] / digest).unlink()
    with pytest.raises(TransferRefused, match="not stored any more"):
        await read(desk.open(SendFile(None, digest)), 100)


async def test_N3_a_cut_request_stores_nothing(desk: Desk) -> None:
    async def cut() -> AsyncIterator[bytes]:
        yield b"half of it"
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await desk.exchange.files.store(cut(), desk.account)
    await desk.settled()
    assert desk.files("files") == {}


# --- peers that do not keep to the protocol -------------------------------------------------------


async def test_each_transfer_takes_its_own_messages_only(desk: Desk) -> None:
    """U1: a closed set of operations, each for the one end that was opened for it."""
    every = [
        write(b"x"),
        CLOSE,
        messages.UpdateUploadFileUtime(ID, 1.0, 2.0),
        messages.UpdateReadFile(ID, 5),
        messages.UpdateReadFileClose(ID),
        pack(b"x"),
        UNPACK,
    ]
    own: dict[Any, set[int]] = {
        ReceiveFile("f", 10): {0, 1, 2},
        SendFile("text", None): {3, 4},
        ReceiveDirectory("d", None): {5, 6},
    }
    for wanted, mine in own.items():
        for index in set(range(7)) - mine:
            transfer = desk.open(wanted)
            with pytest.raises(ProtocolError):
                await transfer.take(every[index])
            transfer.discard()


async def test_nothing_comes_after_the_end(desk: Desk) -> None:
    transfer = desk.open(ReceiveFile("f", 10))
    await transfer.take(CLOSE)
    for message in (write(b"x"), CLOSE):
        with pytest.raises(ProtocolError):
            await transfer.take(message)
    transfer.discard()
    tree = desk.open(ReceiveDirectory("d", None))
    await tree.take(pack(archive()))
    await tree.take(UNPACK)
    for message in (pack(b"x"), UNPACK):
        with pytest.raises(ProtocolError):
            await tree.take(message)
    tree.discard()


async def test_V15_a_peer_that_waits_for_no_answer_is_refused(desk: Desk) -> None:
    transfer = desk.open(ReceiveFile("f", 10**9))
    sent = [asyncio.ensure_future(transfer.take(write(bytes(1000)))) for _ in range(50)]
    answers = await asyncio.gather(*sent, return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, ProtocolError)]
    assert len(refused) == 50 - transfers.WAITING_BLOCKS
    assert transfer.size_bytes == transfers.WAITING_BLOCKS * 1000
    transfer.discard()


async def test_what_the_hub_refused_is_why_the_command_failed(desk: Desk) -> None:
    command = CommandRun("i", None, transfer=desk.open(ReceiveFile("f", 3)))
    with pytest.raises(ProtocolError):
        await command.carry(write(b"four"))
    command.stored.set()  # which the command's end waits for
    await command.update([["rc", 1], ["stderr", ["the hub refused it\n", [18], [0.0]]]])
    await command.complete("Traceback: what a stock worker says then")
    outcome = command.outcome.result()
    assert (outcome.state, outcome.text) == ("failure", "the file is larger than 3 bytes")
    assert command.transfer is not None
    command.transfer.discard()


async def test_D2_a_full_disk_is_the_hubs_trouble_not_the_builds(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, data: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    command = CommandRun("i", None, transfer=desk.open(ReceiveFile("f", 1000)))
    with monkeypatch.context() as patched:
        patched.setattr(transfers, "write_all", full)
        with pytest.raises(ProtocolError, match="No space left"):
            await command.carry(write(b"x"))
    command.stored.set()
    await command.complete(None)
    assert command.outcome.result().state == "exception"
    assert command.transfer is not None
    command.transfer.discard()


async def test_a_command_without_a_transfer_takes_no_file() -> None:
    with pytest.raises(ProtocolError, match="no file to transfer"):
        await CommandRun("i", None).carry(write(b"x"))


def test_a_big_directory_is_never_in_memory() -> None:
    """V15: what the parser holds is one header, or the piece it was fed."""
    from hostler_hub.builds.artifacts.tar import TarParser

    parser = TarParser()
    data = archive(("f", bytes(3_000_000)))
    for piece in iter(io.BytesIO(data).read, b""):
        assert sum(1 for _ in parser.feed(piece))
        assert len(parser._buffer) < 1024
        break


# --- what is called how, counted, and left --------------------------------------------------------


STRANGE = [
    "CON",
    "x:stream",
    "C:evil",
    "C:/x",
    "dots...",
    "blank ",
    "a\\b",
    "\x1b[2J",
    "two\nlines",
]


async def test_an_artifact_may_be_called_anything_and_no_file_is(desk: Desk) -> None:
    for name in STRANGE:
        await upload(desk, name, name.encode())
    await upload_tree(desk, "tree", archive(*((name, name.encode()) for name in STRANGE)))
    contents = await desk.contents()
    assert contents == {
        **{name: name.encode() for name in STRANGE},
        **{f"tree/{name}": name.encode() for name in STRANGE},
    }
    for place in desk.files():
        build, attempt, *file = place.split("/")
        assert (build, attempt) == (BUILD, "1")
        assert all(set(part) <= set("0123456789abcdef") for part in file)


async def test_an_older_hub_s_artifacts_are_where_they_were(desk: Desk) -> None:
    """They are called by their paths, are replaced, and go with their attempt."""
    old = desk.root / "artifacts" / BUILD / "1"
    (old / "d").mkdir(parents=True)
    (old / "d" / "f").write_bytes(b"old")
    (old / ("0" * 32)).write_bytes(b"hash")
    row = {"build": BUILD, "attempt": 1, "step": 0, "sha256": "", "modified_at": None}
    row |= {"size_bytes": 3, "stored_at": 1.0}
    as_before = [row | {"path": path, "file": None} for path in ("d/f", "0" * 32)]
    await desk.store.write(rows.put, as_before)
    assert await desk.exchange.artifacts.load() == [("test", 6)]
    assert await desk.contents() == {"d/f": b"old", "0" * 32: b"hash"}
    await upload(desk, "d/f", b"new")
    assert await desk.contents() == {"d/f": b"new", "0" * 32: b"hash"}
    assert not (old / "d" / "f").exists()
    await desk.exchange.artifacts.forget_before(BUILD, 2, desk.account)
    assert desk.files() == {}


async def test_a_killed_hub_s_files_without_rows_are_removed(desk: Desk) -> None:
    await upload(desk, "f", b"1")
    await upload_tree(desk, "d", archive(("a", b"2"), ("b", b"3")))
    await upload_tree(desk, "e", archive(("a", b"4")))
    before = desk.files()
    (tree,) = {place.split("/")[2] for place in before if place.endswith("/1")}
    attempt = desk.root / "artifacts" / BUILD / "1"
    (attempt / tree / "2").write_bytes(b"stray in a tree that is kept")
    (attempt / ("a" * 32)).write_bytes(b"stray")
    (attempt / ("b" * 32)).mkdir()
    (attempt / ("b" * 32) / "0").write_bytes(b"a whole stray tree")
    (attempt / "by-hand").write_bytes(b"not ours")
    assert await desk.exchange.artifacts.load() == [("test", 4)]
    assert desk.files() == {**before, f"{BUILD}/1/by-hand": b"not ours"}
    assert not (attempt / ("b" * 32)).exists()


async def test_a_killed_hub_s_earlier_attempts_are_removed(desk: Desk) -> None:
    await upload(desk, "f", b"first")
    await desk.attempt(2)  # and the hub is killed before it has removed them
    await upload(desk, "g", b"second", StepKey(BUILD, 2, 0))
    assert await desk.exchange.artifacts.load() == [("test", 6)]
    assert list(desk.files().values()) == [b"second"]


async def test_what_was_removed_by_hand_does_not_count(desk: Desk) -> None:
    await upload(desk, "f", b"x")
    shutil.rmtree(desk.root / "artifacts" / BUILD)
    assert await desk.exchange.artifacts.load() == []
    stored = await desk.put(b"stored")
    other = await desk.put(b"other")
    (desk.root / "files" / stored.sha256[:2] / stored.sha256).unlink()
    assert await desk.exchange.files.load() == [("test", other.size_bytes)]
    assert await desk.exchange.files.load() == [("test", other.size_bytes)]


async def test_an_older_hub_s_stored_files_count_for_nobody(desk: Desk) -> None:
    stored = await desk.put(b"stored")
    await desk.store.write(stored_files.remove, [(stored.sha256, "test")])
    (desk.root / "files" / "aa").mkdir()
    (desk.root / "files" / "aa" / "by-hand").write_bytes(b"no hash")
    for _ in range(2):
        assert await desk.exchange.files.load() == [("", 6)]


async def used(desk: Desk) -> tuple[int, int]:
    """The bytes of artifacts and stored files that are counted, now and by the next hub."""
    await desk.settled()
    view = desk.exchange.quotas.view()
    now = (view.artifacts.used_bytes, view.files.used_bytes)
    after = Exchange(desk.exchange.artifacts, desk.exchange.files, Quotas())
    await after.load()
    then = after.quotas.view()
    assert (then.artifacts.used_bytes, then.files.used_bytes) == now
    return now


async def test_what_is_kept_counts_and_what_is_replaced_or_lost_does_not(desk: Desk) -> None:
    await upload(desk, "f", b"x" * 30)
    await upload(desk, "f", b"y" * 20)
    await upload_tree(desk, "d", archive(("a", b"1" * 5), ("b", b"2" * 5)))
    await upload_tree(desk, "d", archive(("a", b"1")))
    assert await used(desk) == (26, 0)
    lost = desk.open(ReceiveFile("g", 1000))
    await lost.take(write(b"half"))
    assert desk.exchange.quotas.view().artifacts.used_bytes == 30
    lost.discard()
    with pytest.raises(TransferRefused):
        await upload(desk, "f/below", b"refused")
    assert await used(desk) == (26, 0)
    for _ in range(2):
        await desk.put(b"stored")
    await desk.exchange.files.store(chunks(b"stored"), desk.exchange.quotas.account("ann"))
    assert await used(desk) == (26, 12)
    await desk.exchange.artifacts.forget_before(BUILD, 2, desk.account)
    assert await used(desk) == (0, 12)


@pytest.fixture
def limits(desk: Desk) -> None:
    """Ten bytes of everything for everybody."""
    ten = {kind: Limits(per_submitter=10) for kind in Kind}
    object.__setattr__(desk.exchange, "quotas", Quotas(ten))


@pytest.mark.usefixtures("limits")
async def test_an_upload_over_the_quota_is_refused_with_the_reason(desk: Desk) -> None:
    await upload(desk, "f", b"x" * 6)
    for send in (
        upload(desk, "g", b"y" * 5),
        upload_tree(desk, "d", archive(("a", b"1" * 4), ("b", b"2"))),
    ):
        with pytest.raises(TransferRefused, match="artifacts of test may have 10 bytes"):
            await send
    await desk.settled()
    assert await desk.contents() == {"f": b"x" * 6}
    await upload(desk, "g", b"y" * 4)  # what was refused has given its space back
    assert sorted(desk.files().values()) == [b"x" * 6, b"y" * 4]


@pytest.mark.usefixtures("limits")
async def test_V19_another_submitter_s_upload_goes_on(desk: Desk) -> None:
    await upload(desk, "f", b"x" * 10)
    await desk.put(b"x" * 10)
    ann = desk.exchange.quotas.account("ann")
    wanted = ReceiveFile("of-ann", 1000)
    transfer = desk.exchange.open(wanted, ann)
    await transfer.take(write(b"y" * 10))
    await transfer.take(CLOSE)
    await desk.exchange.keep(transfer, wanted, FIRST)
    await desk.exchange.files.store(chunks(b"y" * 10), ann)


@pytest.mark.usefixtures("limits")
async def test_uploads_at_once_do_not_exceed_the_quota_together(desk: Desk) -> None:
    sent = [upload(desk, f"f{number}", bytes([number]) * 4) for number in range(6)]
    results = await asyncio.gather(*sent, return_exceptions=True)
    refused = [result for result in results if isinstance(result, TransferRefused)]
    assert len(refused) + len(await desk.contents()) == 6
    assert sum(map(len, (await desk.contents()).values())) <= 10
    await desk.settled()
    await used_equals_files(desk)


async def used_equals_files(desk: Desk) -> None:
    on_disk = sum(map(len, desk.files().values()))
    assert desk.exchange.quotas.view().artifacts.used_bytes == on_disk


@pytest.mark.usefixtures("limits")
async def test_a_stored_file_over_the_quota_is_refused(desk: Desk) -> None:
    with pytest.raises(TooLarge, match="The files of test may have 10 bytes"):
        await desk.exchange.files.store(chunks(), desk.account, 11)
    await desk.put(b"x" * 8)
    with pytest.raises(InsufficientStorage, match="have 10 bytes already"):
        await desk.put(b"y" * 2, b"y")
    await desk.settled()
    assert len(desk.files("files")) == 1
    await desk.put(b"z" * 2)


async def test_a_lost_attempt_s_files_are_stored_whole_and_then_removed(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its runner is cancelled while they are stored; the next attempt waits for the end of that."""
    artifacts = desk.exchange.artifacts
    began, go_on = asyncio.Event(), asyncio.Event()
    record = artifacts._record

    async def slow(*arguments: Any) -> Any:
        began.set()
        await go_on.wait()
        return await record(*arguments)

    monkeypatch.setattr(artifacts, "_record", slow)
    wanted = ReceiveDirectory("d", None)
    transfer = desk.open(wanted)
    await transfer.take(pack(archive(("a", b"1"), ("b", b"2"))))
    await transfer.take(UNPACK)
    keeping = asyncio.ensure_future(desk.exchange.keep(transfer, wanted, FIRST))
    await began.wait()
    keeping.cancel()
    transfer.discard()
    await asyncio.wait([keeping])
    forgetting = asyncio.ensure_future(artifacts.forget_before(BUILD, 2, desk.account))
    go_on.set()
    await forgetting
    await desk.settled()
    assert desk.files() == {}
    assert await used(desk) == (0, 0)
