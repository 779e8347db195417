"""What the agent's commands do to a build's files: as its user, and led nowhere by links (V20)."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parent.parent))

from commandkit import RecordingContext, run

from hostler_agent.commands.slots.posix import UserSlot, UserSlots
from hostler_agent.wire import messages


@pytest.fixture
def workspace(base: Path) -> Path:
    return base / "builds" / "01ARZ3NDEKTSV4RRFFQ69G5FAV.1"


async def test_all_that_commands_make_belongs_to_the_user_alone(
    slot_context: RecordingContext, slot: UserSlot, workspace: Path
) -> None:
    context = slot_context
    context.answers = [b"text", b""]
    assert await run(context, "mkdir", paths=[str(workspace / "a/b")]) == 0
    context.updates.clear()
    assert await run(context, "download_file", path=str(workspace / "a/file"), mode=0o644) == 0
    made = [workspace, *workspace.rglob("*")]
    assert {path.name for path in made} == {workspace.name, "a", "b", "file"}
    assert {(path.stat().st_uid, path.stat().st_gid) for path in made} == {
        (slot.user.uid, slot.user.gid)
    }
    assert workspace.stat().st_mode & 0o777 == 0o700
    assert (workspace / "a/file").read_text() == "text"


async def test_whole_build_directories_are_removed_though_they_lie_in_the_agents(
    slot_context: RecordingContext, slot: UserSlot, workspace: Path
) -> None:
    await slot.claim([str(workspace)])
    await slot.run((workspace / "deep").mkdir)
    assert await run(slot_context, "rmdir", paths=[str(workspace)]) == 0
    assert not workspace.exists()
    assert (workspace.parent.stat().st_uid, workspace.parent.stat().st_mode & 0o777) == (0, 0o711)


ATTACKS: dict[str, dict[str, Any]] = {
    "upload_file": {"path": "link/secret"},
    "upload_file of a link": {"path": "to-secret"},
    "upload_directory": {"path": "link/directory"},
    "upload_directory compressed": {"path": "link/directory", "compress": "bz2"},
    "download_file": {"path": "link/secret"},
    "download_file beside": {"path": "link/new"},
    "mkdir": {"paths": ["link/new"]},
    "rmdir": {"paths": ["link/directory"]},
    "rmfile": {"path": "link/secret"},
    "cpdir from": {"from_path": "link/directory", "to_path": "copy"},
    "cpdir to": {"from_path": "own", "to_path": "link/new"},
    "listdir": {"path": "link"},
    "stat": {"path": "link/secret"},
}


@pytest.mark.parametrize("attack", ATTACKS)
async def test_V20_no_link_leads_a_command_of_the_agent_elsewhere(
    slot_context: RecordingContext, slot: UserSlot, workspace: Path, tmp_path: Path, attack: str
) -> None:
    """Of all that root may do nothing is done for a build that asks by a link."""
    context = slot_context
    private = tmp_path / "of-the-agent"
    (private / "directory").mkdir(parents=True)
    (private / "secret").write_text("the token")
    private.chmod(0o700)
    await slot.claim([str(workspace)])

    def prepare() -> None:
        (workspace / "link").symlink_to(private)
        (workspace / "to-secret").symlink_to(private / "secret")
        (workspace / "own").mkdir()

    await slot.run(prepare)
    name, _, _ = attack.partition(" ")
    args = {
        key: [str(workspace / each) for each in value]
        if isinstance(value, list)
        else (value if key == "compress" else str(workspace / value))
        for key, value in ATTACKS[attack].items()
    }
    context.answers = [b"poison", b""]
    if name == "upload_file":
        args["blocksize"] = 100
    code = await run(context, name, **args)
    assert code != 0 or name == "rmdir"  # what cannot be seen is removed already
    assert b"the token" not in b"".join(
        one.args for one in context.requests if isinstance(one, messages.UpdateUploadFileWrite)
    )
    assert sorted(path.name for path in private.iterdir()) == ["directory", "secret"]
    assert (private / "secret").read_text() == "the token"


async def test_V20_a_pattern_finds_nothing_that_the_build_may_not_see(
    slot_context: RecordingContext, slot: UserSlot, workspace: Path, tmp_path: Path
) -> None:
    private = tmp_path / "of-the-agent"
    private.mkdir(mode=0o700)
    (private / "secret").write_text("")
    await slot.claim([str(workspace)])
    await slot.run(lambda: (workspace / "link").symlink_to(private))
    assert await run(slot_context, "glob", path=str(workspace / "link" / "*")) == 0
    assert slot_context.value("files") == []


async def test_a_tree_is_uploaded_whole_and_compressed(
    slot_context: RecordingContext, slot: UserSlot, workspace: Path
) -> None:
    """Also by modules that the user of the build could not read."""
    await slot.claim([str(workspace)])

    def prepare() -> None:
        (workspace / "d").mkdir(mode=0o700)
        (workspace / "d" / "file").write_text("text")

    await slot.run(prepare)
    context, path = slot_context, str(workspace / "d")
    assert await run(context, "upload_directory", path=path, compress="bz2") == 0
    assert context.archive().getnames() == ["", "file"]


async def test_V20_nobody_works_in_the_directory_of_a_build_that_runs(
    slots: UserSlots, slot: UserSlot, slot_context: RecordingContext, workspace: Path
) -> None:
    await slot.claim([str(workspace)])
    context = slot_context
    context.slot_key = "another"
    assert await run(context, "mkdir", paths=[str(workspace / "x")]) != 0
    assert "belongs to another build" in context.text("header")
    async with slots.use("another") as other:
        with pytest.raises(PermissionError):
            await other.run(os.listdir, str(workspace))
        with pytest.raises(PermissionError):
            await other.run(os.listdir, str(workspace.parent))


async def test_a_kept_directory_goes_to_the_next_user_without_the_machines_files(
    slots: UserSlots, base: Path, tmp_path: Path
) -> None:
    """As of a stock master's builder: its directory outlives the slot that worked in it."""
    kept = base / "builder"
    machine = tmp_path / "of-the-machine"
    machine.write_text("")
    async with slots.use("first") as first:
        await first.claim([str(kept / "build")])
        await first.run(lambda: ((kept / "d").mkdir(), (kept / "d/file").write_text("")))
        assert first.user is not None
        owner = first.user.uid
    os.link(machine, kept / "d" / "hard")
    async with slots.use("second") as second:
        await slots.end("first", [])
        await second.claim([str(kept / "build")])
        assert second.user is not None
        uids = {path.name: path.stat().st_uid for path in (kept, *kept.rglob("*"))}
        new = second.user.uid
        assert new != owner
        assert uids == {"builder": new, "d": new, "file": new, "hard": 0}


async def test_a_stock_master_makes_the_directories_of_all_its_builders_at_once(
    slots: UserSlots, slot_context: RecordingContext, base: Path
) -> None:
    """They belong to nobody but the agent until a build of theirs works there."""
    context = slot_context
    context.slot_key = "linux"
    names = ("linux", "windows", "info")
    assert await run(context, "mkdir", paths=[str(base / name) for name in names]) == 0
    assert {(base / name).stat().st_uid for name in names} == {0}
    context.updates.clear()
    assert await run(context, "mkdir", paths=[str(base / "linux/build")]) == 0
    async with slots.use("linux") as slot:
        assert slot.user is not None
        assert (base / "linux").stat().st_uid == slot.user.uid
        assert (base / "linux").stat().st_mode & 0o777 == 0o700


async def test_the_agents_own_directories_belong_to_no_slot(slot: UserSlot, base: Path) -> None:
    for name in (".hostler", "homes", "builds", "info"):
        await slot.claim([str(base / name)])
    assert base.stat().st_uid == 0
    assert {path.stat().st_uid for path in base.iterdir()} == {0}
    for name in (".hostler", ".hostler/slots", "homes", "builds"):
        with pytest.raises(PermissionError):
            await slot.run(os.listdir, str(base / name))
