"""The hub's ends of transfers, and what becomes of files: whole and durable, or not there (N3)."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import io
import os
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
from hostler_hub.builds.step_kinds import ReceiveDirectory, ReceiveFile, SendFile
from hostler_hub.errors import NotFound
from hostler_hub.runtime.virtual_clock import VirtualClock
from hostler_hub.store import builds
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
        files = Files(tmp_path / "files", threads)
        made = Desk(Exchange(artifacts, files), store, tmp_path, threads)
        yield made
        await made.settled()
        assert not any(name.startswith("staging") for name in made.files())
        assert not any(name.startswith("staging") for name in made.files("files"))
        threads.shutdown()
        artifacts.close()
        files.close()


async def upload(desk: Desk, name: str, data: bytes, step: StepKey = FIRST) -> Any:
    wanted = ReceiveFile(name, 1000)
    transfer = desk.exchange.open(wanted)
    try:
        for start in range(0, len(data), 10):
            assert await transfer.take(write(data[start : start + 10])) is None
        await transfer.take(CLOSE)
        return await desk.exchange.keep(transfer, wanted, step)
    finally:
        transfer.discard()


async def upload_tree(desk: Desk, name: str, data: bytes, step: StepKey = FIRST) -> Any:
    wanted = ReceiveDirectory(name, None)
    transfer = desk.exchange.open(wanted)
    try:
        await transfer.take(pack(data))
        await transfer.take(UNPACK)
        return await desk.exchange.keep(transfer, wanted, step)
    finally:
        transfer.discard()


# --- files ----------------------------------------------------------------------------------------


async def test_a_file_is_staged_and_then_there(desk: Desk) -> None:
    wanted = ReceiveFile("a/b", 1000)
    transfer = desk.exchange.open(wanted)
    await transfer.take(write(b"one "))
    await transfer.take(write(b"two"))
    assert [name.partition("/")[0] for name in desk.files()] == ["staging"]
    await transfer.take(CLOSE)
    await transfer.take(messages.UpdateUploadFileUtime(ID, 5.0, 1234567890.0))
    assert (await desk.exchange.artifacts.page(BUILD, 10, None))["items"] == []
    digest = hashlib.sha256(b"one two").hexdigest()
    stored = {"path": "a/b", "size_bytes": 7, "sha256": digest}
    assert await desk.exchange.keep(transfer, wanted, FIRST) == [stored]
    transfer.discard()
    assert desk.files() == {f"{BUILD}/1/a/b": b"one two"}
    page = await desk.exchange.artifacts.page(BUILD, 10, None)
    more = {"modified_at": "2009-02-13T23:31:30.000Z", "stored_at": "1970-01-01T00:16:40.000Z"}
    assert page == {"items": [{**stored, **more, "step": 0}], "next": None}
    view, file = await desk.exchange.artifacts.open(BUILD, "a/b")
    with file:
        assert (view["sha256"], file.read()) == (digest, b"one two")


@pytest.mark.parametrize("ending", ["cut", "never begun", "discarded twice"])
async def test_N3_a_cut_upload_leaves_nothing(desk: Desk, ending: str) -> None:
    wanted = ReceiveFile("f", 1000)
    transfer = desk.exchange.open(wanted)
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
    transfer = desk.exchange.open(ReceiveFile("f", 1000))
    await transfer.take(write(b"half of it"))
    tree = desk.exchange.open(ReceiveDirectory("d", None))
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
    assert desk.files() == {f"{BUILD}/1/f": b"new"}
    (item,) = (await desk.exchange.artifacts.page(BUILD, 10, None))["items"]
    assert (item["step"], item["size_bytes"]) == (3, 3)
    for name in ("f/below", "f/below/it"):
        with pytest.raises(TransferRefused, match="there is an artifact where"):
            await upload(desk, name, b"x")
    await upload(desk, "d/g", b"x")
    with pytest.raises(TransferRefused, match="where d or a directory of it"):
        await upload(desk, "d", b"x")


async def test_one_byte_past_the_limit(desk: Desk) -> None:
    wanted = ReceiveFile("f", 10)
    transfer = desk.exchange.open(wanted)
    await transfer.take(write(b"x" * 10))
    with pytest.raises(TransferRefused, match="larger than 10 bytes"):
        await transfer.take(write(b"y"))
    transfer.discard()


@pytest.mark.parametrize("name", ["../x", "/x", "a//b", "a\\b", ""])
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
    base = f"{BUILD}/1/out"
    expected = {"a/b": b"3", "c": b"2", "a/d": b"4", "a/f": b"5"}
    assert desk.files() == {f"{base}/{name}": data for name, data in expected.items()}
    page = await desk.exchange.artifacts.page(BUILD, 2, None)
    assert [item["path"] for item in page["items"]] == ["out/a/b", "out/a/d"]
    page = await desk.exchange.artifacts.page(BUILD, 10, page["next"])
    assert [item["path"] for item in page["items"]] == ["out/a/f", "out/c"]


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
    assert (await artifacts.page(BUILD, 10, None))["items"] == []
    with pytest.raises(NotFound):
        await artifacts.open(BUILD, "f")
    await upload(desk, "g", b"second", StepKey(BUILD, 2, 0))
    await artifacts.forget_before(BUILD, 2)
    assert desk.files() == {f"{BUILD}/2/g": b"second"}
    assert [item["path"] for item in (await artifacts.page(BUILD, 10, None))["items"]] == ["g"]
    await artifacts.forget_before("01K8Z9Q8Y3N6V4T2R0P9M7K5ZZ", 3)  # one that gave nothing


async def test_what_is_not_there(desk: Desk) -> None:
    with pytest.raises(NotFound, match="no build"):
        await desk.exchange.artifacts.page("01K8Z9Q8Y3N6V4T2R0P9M7K5ZZ", 10, None)
    await upload(desk, "f", b"x")
    (desk.root / "artifacts" / BUILD / "1" / "f").unlink()
    with pytest.raises(NotFound, match="removed from the hub's disk"):
        await desk.exchange.artifacts.open(BUILD, "f")


# --- what goes to agents --------------------------------------------------------------------------


async def chunks(*data: bytes) -> AsyncIterator[bytes]:
    for each in data:
        yield each


async def read(transfer: transfers.Transfer, length: int) -> Any:
    return await transfer.take(messages.UpdateReadFile(ID, length))


async def test_N4_a_stored_file_is_read_to_its_end_and_that_is_empty_bytes(desk: Desk) -> None:
    stored = await desk.exchange.files.store(chunks(b"one ", b"", b"two"))
    digest = hashlib.sha256(b"one two").hexdigest()
    assert stored == {"sha256": digest, "size_bytes": 7}
    assert await desk.exchange.files.store(chunks(b"one two")) == stored
    await desk.settled()
    assert desk.files("files") == {f"{digest[:2]}/{digest}": b"one two"}
    wanted = SendFile(None, digest)
    transfer = desk.exchange.open(wanted)
    assert [await read(transfer, 5) for _ in range(2)] == [b"one t", b"wo"]
    with pytest.raises(TransferRefused, match="has not read all of it"):
        await desk.exchange.keep(transfer, wanted, FIRST)
    assert await read(transfer, 5) == b""
    assert await desk.exchange.keep(transfer, wanted, FIRST) == [stored]
    await transfer.take(messages.UpdateReadFileClose(ID))
    with pytest.raises(ProtocolError):  # single use
        await read(transfer, 5)


async def test_text_and_emptiness_are_files_like_any_other(desk: Desk) -> None:
    for text in ("gr\N{SNOWMAN}n", ""):
        transfer = desk.exchange.open(SendFile(text, None))
        data = await read(transfer, 100)
        assert data == text.encode()
        assert await read(transfer, 100) == b""
        transfer.discard()
    with pytest.raises(ProtocolError):
        await read(desk.exchange.open(SendFile("x", None)), 0)


async def test_a_damaged_file_is_not_passed_off_as_whole(desk: Desk) -> None:
    digest = (await desk.exchange.files.store(chunks(b"one two")))["sha256"]
    (desk.root / "files" / digest[:2] / digest).write_bytes(b"one tvo")
    transfer = desk.exchange.open(SendFile(None, digest))
    assert await read(transfer, 100) == b"one tvo"
    with pytest.raises(TransferRefused, match="damaged"):
        await read(transfer, 100)
    transfer.discard()
    (desk.root / "files" / digest[:2] / digest).unlink()
    with pytest.raises(TransferRefused, match="not stored any more"):
        await read(desk.exchange.open(SendFile(None, digest)), 100)


async def test_N3_a_cut_request_stores_nothing(desk: Desk) -> None:
    async def cut() -> AsyncIterator[bytes]:
        yield b"half of it"
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await desk.exchange.files.store(cut())
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
            transfer = desk.exchange.open(wanted)
            with pytest.raises(ProtocolError):
                await transfer.take(every[index])
            transfer.discard()


async def test_nothing_comes_after_the_end(desk: Desk) -> None:
    transfer = desk.exchange.open(ReceiveFile("f", 10))
    await transfer.take(CLOSE)
    for message in (write(b"x"), CLOSE):
        with pytest.raises(ProtocolError):
            await transfer.take(message)
    transfer.discard()
    tree = desk.exchange.open(ReceiveDirectory("d", None))
    await tree.take(pack(archive()))
    await tree.take(UNPACK)
    for message in (pack(b"x"), UNPACK):
        with pytest.raises(ProtocolError):
            await tree.take(message)
    tree.discard()


async def test_V15_a_peer_that_waits_for_no_answer_is_refused(desk: Desk) -> None:
    transfer = desk.exchange.open(ReceiveFile("f", 10**9))
    sent = [asyncio.ensure_future(transfer.take(write(bytes(1000)))) for _ in range(50)]
    answers = await asyncio.gather(*sent, return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, ProtocolError)]
    assert len(refused) == 50 - transfers.WAITING_BLOCKS
    assert transfer.size_bytes == transfers.WAITING_BLOCKS * 1000
    transfer.discard()


async def test_what_the_hub_refused_is_why_the_command_failed(desk: Desk) -> None:
    command = CommandRun("i", None, transfer=desk.exchange.open(ReceiveFile("f", 3)))
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

    command = CommandRun("i", None, transfer=desk.exchange.open(ReceiveFile("f", 1000)))
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
