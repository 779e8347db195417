"""`mkdir`, `rmdir`, `cpdir`, `stat`, `glob`, `listdir`, `rmfile`."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from commandkit import run

from hostler_agent.commands import COMMANDS, VERSIONS, BadArguments
from hostler_agent.wire.extension import END_LEASE, TOOL_VERSIONS


def start(script: str, directory: str | Path) -> str:
    """Runs Python there; its output."""
    command = [sys.executable, "-c", script]
    return subprocess.run(
        command, cwd=directory, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def test_all_of_buildbots_commands_are_there():
    documented = {
        *("shell", "upload_file", "upload_directory", "download_file", "listdir", "mkdir"),
        *("rmdir", "cpdir", "stat", "glob", "rmfile"),
    }
    assert set(COMMANDS) == set(VERSIONS) == {*documented, TOOL_VERSIONS, END_LEASE}


async def test_mkdir_makes_all_that_is_missing(context, tmp_path):
    paths = [str(tmp_path / "a" / "b"), str(tmp_path / "c")]
    assert await run(context, "mkdir", paths=paths) == 0
    assert all(Path(path).is_dir() for path in paths)


async def test_mkdir_of_a_file_fails(context, tmp_path):
    (tmp_path / "file").write_text("")
    assert await run(context, "mkdir", paths=[str(tmp_path / "file")]) == errno.EEXIST
    assert context.text("header") == f"mkdir: File exists: {tmp_path}/file\n"


async def test_rmdir_removes_trees_files_and_what_is_not_there(context, tmp_path):
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    (tmp_path / "tree" / "deep" / "file").write_text("x")
    (tmp_path / "file").write_text("x")
    paths = [str(tmp_path / name) for name in ("tree", "file", "missing", "missing/below")]
    assert await run(context, "rmdir", paths=paths) == 0
    assert list(tmp_path.iterdir()) == []


async def test_rmdir_never_follows_a_link(context, tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("x")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "link").symlink_to(kept)
    (tmp_path / "top").symlink_to(kept)
    assert await run(context, "rmdir", paths=[str(tree), str(tmp_path / "top")]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (kept / "file").exists()


async def test_e18_rmdir_of_a_tree_deeper_than_any_path(context, tmp_path):
    script = (
        "import os\n"
        "for _ in range(1500):\n"
        "    os.mkdir('d' * 50); open('f', 'w').close(); os.chdir('d' * 50)\n"
    )
    (tmp_path / "tree").mkdir()
    start(script, tmp_path / "tree")
    assert await run(context, "rmdir", paths=[str(tmp_path / "tree")]) == 0
    assert list(tmp_path.iterdir()) == []


async def test_e18_rmdir_gives_itself_permission(tmp_path):
    """As another user: root needs no permission."""
    script = (
        "import os, sys\n"
        "from hostler_agent.commands.filework import Progress\n"
        "from hostler_agent.commands.removal import remove\n"
        "os.setuid(65534)\n"
        "os.makedirs('tree/closed/inner'); open('tree/closed/file', 'w').close()\n"
        "os.chmod('tree/closed', 0o500); os.chmod('tree/closed/inner', 0)\n"
        "os.chmod('tree', 0o500)\n"
        "print(remove(os.path.abspath('tree'), Progress()), os.path.exists('tree'))\n"
    )
    # Below /tmp itself: the tests' own directories are closed to others.
    if os.getuid() != 0:
        pytest.skip("needs root, to become somebody else")
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        Path(directory).chmod(0o777)
        output = start(script, directory)
    assert output == "[] False\n"


async def test_rmdir_goes_on_after_a_failure_and_tells_it(context, tmp_path):
    (tmp_path / "file").write_text("x")
    paths = ["/proc/self/status", str(tmp_path / "file")]
    assert await run(context, "rmdir", paths=paths) in (errno.EPERM, errno.EACCES)
    assert "/proc/self/status" in context.text("header")
    assert not (tmp_path / "file").exists()


async def test_rmdir_stops_when_interrupted(context, tmp_path):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_text("x")
    command = COMMANDS["rmdir"](context, {"paths": [str(tmp_path / "tree")]})
    command.interrupt("enough")
    await command.run()
    assert context.value("rc") == -1
    assert context.text("header") == "rmdir: interrupted: enough\n"
    assert (tmp_path / "tree" / "file").exists()


async def test_rmdir_has_a_time_limit(context, tmp_path):
    for number in range(100):
        (tmp_path / "tree" / str(number)).mkdir(parents=True)
    assert await run(context, "rmdir", paths=[str(tmp_path / "tree")], maxTime=1e-9) == -1
    assert "timed out" in context.text("header")


async def test_cpdir_keeps_what_cp_keeps(context, tmp_path):
    source = tmp_path / "source"
    (source / "below").mkdir(parents=True)
    (source / "below" / "file").write_text("text")
    (source / "below" / "file").chmod(0o751)
    os.utime(source / "below" / "file", (1e9, 1e9))
    (source / "link").symlink_to("below/nowhere")
    os.mkfifo(source / "pipe")
    target = tmp_path / "new" / "target"
    assert await run(context, "cpdir", from_path=str(source), to_path=str(target)) == 0
    copied = (target / "below" / "file").stat()
    assert (target / "below" / "file").read_text() == "text"
    assert (stat.S_IMODE(copied.st_mode), copied.st_mtime) == (0o751, 1e9)
    assert str((target / "link").readlink()) == "below/nowhere"
    assert (target / "pipe").is_fifo()


async def test_cpdir_copies_nothing_into_what_exists(context, tmp_path):
    for name in ("source", "target"):
        (tmp_path / name).mkdir()
    args = {"from_path": str(tmp_path / "source"), "to_path": str(tmp_path / "target")}
    assert await run(context, "cpdir", **args) == errno.EEXIST
    assert list((tmp_path / "target").iterdir()) == []


async def test_cpdir_of_nothing_fails(context, tmp_path):
    args = {"from_path": str(tmp_path / "none"), "to_path": str(tmp_path / "target")}
    assert await run(context, "cpdir", **args) == errno.ENOENT


async def test_stat_has_ten_numbers(context, tmp_path):
    (tmp_path / "file").write_text("12345")
    assert await run(context, "stat", path=str(tmp_path / "file")) == 0
    numbers = context.value("stat")
    assert (len(numbers), numbers[6]) == (10, 5)
    assert stat.S_ISREG(numbers[0])


@pytest.mark.parametrize("name", ["stat", "listdir", "rmfile"])
async def test_what_is_missing_is_a_failure(context, tmp_path, name):
    missing = str(tmp_path / "missing")
    assert await run(context, name, path=missing) == errno.ENOENT
    assert context.text("header") == f"{name}: No such file or directory: {missing}\n"


async def test_glob_finds_what_a_shell_finds(context, tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "x.txt").write_text("")
    (tmp_path / "a" / "broken.txt").symlink_to("nowhere")
    assert await run(context, "glob", path=f"{tmp_path}/**/*.txt") == 0
    expected = {f"{tmp_path}/a/b/x.txt", f"{tmp_path}/a/broken.txt"}
    assert set(context.value("files")) == expected


async def test_glob_of_nothing_is_an_empty_list(context, tmp_path):
    assert await run(context, "glob", path=f"{tmp_path}/*.none") == 0
    assert context.value("files") == []


async def test_listdir_lists_names_of_any_bytes(context, tmp_path):
    (tmp_path / "plain").write_text("")
    os.close(os.open(os.fsencode(tmp_path) + b"/\xff", os.O_CREAT))
    assert await run(context, "listdir", path=str(tmp_path)) == 0
    assert set(context.value("files")) == {"plain", "\ufffd"}


async def test_listdir_of_more_than_an_update_holds_fails(context, tmp_path, monkeypatch):
    monkeypatch.setattr("hostler_agent.commands.queries.MAX_NAMES", 2)
    for name in "abc":
        (tmp_path / name).write_text("")
    assert await run(context, "listdir", path=str(tmp_path)) == errno.E2BIG


async def test_rmfile_removes_a_link_not_its_target(context, tmp_path):
    (tmp_path / "kept").write_text("")
    (tmp_path / "link").symlink_to("kept")
    assert await run(context, "rmfile", path=str(tmp_path / "link")) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"shell", TOOL_VERSIONS}))
@pytest.mark.parametrize("value", [None, 5, [], [5], "", "nul\0", b"bytes", {}])
async def test_wrong_and_missing_arguments_are_one_clear_text(context, name, value):
    arguments = {"cpdir": "from_path"} | dict.fromkeys(("mkdir", "rmdir", END_LEASE), "paths")
    argument = arguments.get(name, "path")
    for args in ({}, {argument: value}):
        with pytest.raises(BadArguments, match=f"^{name}: argument '{argument}' [^\n]*$"):
            await COMMANDS[name](context, args).run()
