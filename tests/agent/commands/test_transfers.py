"""`upload_file`, `upload_directory`, `download_file` (I08, I10-I13, N3, N4)."""

from __future__ import annotations

import os
import stat
import threading

import psutil
import pytest
from commandkit import run

from hostler_agent.commands import COMMANDS
from hostler_agent.wire import messages
from hostler_agent.wire.errors import RemoteError

MIB = 1024 * 1024


async def test_upload_file_sends_blocks_and_closes(context, tmp_path):
    data = os.urandom(100_000)
    (tmp_path / "file").write_bytes(data)
    args = {"path": str(tmp_path / "file"), "blocksize": 30_000, "maxsize": None}
    assert await run(context, "upload_file", **args) == 0
    assert context.sent() == data
    assert [len(one.args) for one in context.requests[:-1]] == [30_000, 30_000, 30_000, 10_000]
    assert context.operations() == ["update_upload_file_write", "update_upload_file_close"]


async def test_upload_file_keeps_times_where_asked(context, tmp_path):
    (tmp_path / "file").write_text("x")
    os.utime(tmp_path / "file", (1e9, 1.1e9))
    assert await run(context, "upload_file", path=str(tmp_path / "file"), keepstamp=True) == 0
    times = context.requests[-1]
    assert (times.access_time, times.modified_time) == (1e9, 1.1e9)


async def test_a_block_is_never_larger_than_a_message(context, tmp_path):
    (tmp_path / "file").write_bytes(bytes(3 * MIB))
    args = {"path": str(tmp_path / "file"), "blocksize": 100 * MIB}
    assert await run(context, "upload_file", **args) == 0
    assert len(context.sent()) == 3 * MIB


@pytest.mark.parametrize(("size", "rc"), [(1000, 0), (1001, 1)])
async def test_upload_file_fails_one_byte_past_maxsize(context, tmp_path, size, rc):
    (tmp_path / "file").write_bytes(bytes(size))
    args = {"path": str(tmp_path / "file"), "maxsize": 1000, "blocksize": 100}
    assert await run(context, "upload_file", **args) == rc
    assert ("Maximum filesize reached" in context.text("stderr")) == bool(rc)
    assert context.operations()[-1] == "update_upload_file_close"


@pytest.mark.parametrize("name", ["missing", "."])
async def test_i10_upload_of_what_is_no_file_fails(context, tmp_path, name):
    assert await run(context, "upload_file", path=str(tmp_path / name)) == 1
    assert "Cannot open file" in context.text("stderr")


async def test_upload_of_a_pipe_does_not_hang(context, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert await run(context, "upload_file", path=str(tmp_path / "pipe")) == 1


async def test_upload_fails_when_the_hub_refuses(context, tmp_path):
    (tmp_path / "file").write_text("x")
    context.refuse = "update_upload_file_write"
    assert await run(context, "upload_file", path=str(tmp_path / "file")) == 1
    assert "the disk is full" in context.text("stderr")
    assert context.operations()[-1] == "update_upload_file_close"


async def test_interrupt_ends_an_upload(context, tmp_path):
    (tmp_path / "file").write_bytes(bytes(1000))
    args = {"path": str(tmp_path / "file"), "blocksize": 1}
    command = COMMANDS["upload_file"](context, args)
    command.interrupt("enough")
    await command.run()
    assert context.value("rc") == 1
    assert len(context.requests) == 2
    assert "interrupted: enough" in context.text("stderr")


@pytest.mark.parametrize("compress", [None, "gz", "bz2"])
async def test_upload_directory_sends_a_tarball(context, tmp_path, compress):
    (tmp_path / "tree" / "below").mkdir(parents=True)
    (tmp_path / "tree" / "below" / "file").write_bytes(b"data" * 50_000)
    (tmp_path / "tree" / "link").symlink_to("below/file")
    args = {"path": str(tmp_path / "tree"), "compress": compress, "blocksize": 4096}
    assert await run(context, "upload_directory", maxsize=None, **args) == 0
    with context.archive() as archive:
        assert {name for name in archive.getnames() if name} == {"below", "below/file", "link"}
        assert archive.extractfile("below/file").read() == b"data" * 50_000
        assert archive.getmember("link").linkname == "below/file"
    sizes = [len(one.args) for one in context.requests[:-1]]
    assert set(sizes[:-1]) <= {4096}
    assert context.operations()[-1] == "update_upload_directory_unpack"


async def test_upload_directory_holds_no_tree_in_memory(context, tmp_path):
    (tmp_path / "sparse").touch()
    os.truncate(tmp_path / "sparse", 200 * MIB)
    before = psutil.Process().memory_info().rss
    largest = 0

    async def drop(message):
        nonlocal largest
        largest = max(largest, psutil.Process().memory_info().rss - before)

    context.request = drop
    args = {"path": str(tmp_path), "blocksize": 256 * 1024}
    assert await run(context, "upload_directory", **args) == 0
    assert largest < 30 * MIB


async def test_i11_upload_of_no_directory_unpacks_nothing(context, tmp_path):
    assert await run(context, "upload_directory", path=str(tmp_path / "missing")) == 1
    assert "Cannot read directory" in context.text("stderr")
    assert context.requests == []


async def test_upload_directory_past_maxsize_unpacks_nothing(context, tmp_path):
    (tmp_path / "file").write_bytes(os.urandom(100_000))
    args = {"path": str(tmp_path), "maxsize": 50_000, "blocksize": 1000}
    assert await run(context, "upload_directory", **args) == 1
    assert "update_upload_directory_unpack" not in context.operations()
    for thread in threading.enumerate():
        if thread.name == "tar":
            thread.join(60)
            assert not thread.is_alive()


async def test_upload_directory_of_too_many_files_fails(context, tmp_path, monkeypatch):
    monkeypatch.setattr("hostler_agent.commands.tarstream.MAX_MEMBERS", 3)
    for name in "abc":
        (tmp_path / name).write_text("")
    assert await run(context, "upload_directory", path=str(tmp_path)) == 1
    assert "more than 3 files" in context.text("stderr")


async def test_download_file_installs_what_it_got(context, tmp_path):
    path = tmp_path / "new" / "file"
    context.answers = [b"one", b"two", b""]
    assert await run(context, "download_file", path=str(path), blocksize=3, mode=0o640) == 0
    assert path.read_bytes() == b"onetwo"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert context.requests[0] == messages.UpdateReadFile("1", 3)
    assert context.operations()[-1] == "update_read_file_close"
    assert [one.name for one in path.parent.iterdir()] == ["file"]


async def test_an_empty_file_is_a_file(context, tmp_path):
    context.answers = [b""]
    assert await run(context, "download_file", path=str(tmp_path / "file")) == 0
    assert (tmp_path / "file").read_bytes() == b""


@pytest.mark.parametrize(
    "answers",
    [
        [None],
        [RemoteError("no such file")],
        [b"half", RemoteError("gone")],
        [b"x" * 1001],
        [5],
    ],
    ids=["nothing", "refused", "cut", "too much", "no data"],
)
async def test_n3_n4_a_failed_download_leaves_what_was_there(context, tmp_path, answers):
    (tmp_path / "file").write_text("old")
    context.answers = answers
    args = {"path": str(tmp_path / "file"), "blocksize": 1000}
    assert await run(context, "download_file", **args) == 1
    assert (tmp_path / "file").read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["file"]
    assert context.text("stderr")
    assert context.operations()[-1] == "update_read_file_close"


@pytest.mark.parametrize(("size", "rc"), [(1000, 0), (1001, 1)])
async def test_download_fails_one_byte_past_maxsize(context, tmp_path, size, rc):
    context.answers = [bytes(600), bytes(size - 600), b""]
    args = {"path": str(tmp_path / "file"), "blocksize": 600, "maxsize": 1000}
    assert await run(context, "download_file", **args) == rc
    assert (tmp_path / "file").exists() == (rc == 0)


async def test_download_replaces_a_link_not_its_target(context, tmp_path):
    (tmp_path / "kept").write_text("kept")
    (tmp_path / "link").symlink_to("kept")
    context.answers = [b"new", b""]
    assert await run(context, "download_file", path=str(tmp_path / "link")) == 0
    assert (tmp_path / "kept").read_text() == "kept"
    assert (tmp_path / "link").read_text() == "new"


async def test_download_keeps_the_mode_of_what_it_replaces(context, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "file").chmod(0o700)
    context.answers = [b"new", b""]
    assert await run(context, "download_file", path=str(tmp_path / "file"), mode=None) == 0
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o700


@pytest.mark.parametrize("path", ["/proc/none/file", "."])
async def test_download_to_where_nothing_can_be_fails(context, path):
    assert await run(context, "download_file", path=path) == 1
    assert "Cannot open file" in context.text("stderr")


async def test_a_secret_is_never_readable_by_others(context, tmp_path, monkeypatch):
    seen = []

    async def look(message):
        if isinstance(message, messages.UpdateReadFile):
            seen.extend(stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir())
            return context.answers.pop(0)
        return None

    context.request = look
    context.answers = [b"secret", b""]
    assert await run(context, "download_file", path=str(tmp_path / "key"), mode=0o600) == 0
    assert set(seen) == {0o600}
