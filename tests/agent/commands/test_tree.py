"""Uploads follow links as long as they stay in the workspace, whatever a build does meanwhile."""

from __future__ import annotations

import os
import sys

import psutil
import pytest
from commandkit import run

from hostler_agent.commands.tree import Tree
from hostler_agent.wire.extension import CommandTerms
from hostler_agent.wire.messages import UpdateUploadDirectoryUnpack

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has tests of its own")


@pytest.fixture
def workspace(tmp_path):
    """A workspace `ws` with files, and `secret` and `etc/shadow` outside of it."""
    inside = tmp_path / "ws"
    (inside / "out" / "deep").mkdir(parents=True)
    (inside / "out" / "a").write_text("a")
    (inside / "out" / "deep" / "b").write_text("b")
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "shadow").write_text("secret")
    return inside


@pytest.fixture
def tree(workspace):
    made = Tree(str(workspace))
    yield made
    made.close()


def read(tree, path):
    with tree.open(path) as file:
        return file.read()


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("relative", "out/a"),
        ("out/up", "../out/a"),
        ("out/deep/up", "../../out/./a"),
        ("absolute", "{ws}/out/a"),
        ("twice", "relative2"),
        ("slashes", "out//a"),
    ],
)
def test_a_link_that_stays_inside_is_followed(workspace, tree, name, target):
    (workspace / "relative2").symlink_to("out/a")
    (workspace / name).symlink_to(target.format(ws=workspace))
    assert read(tree, name) == b"a"


@pytest.mark.parametrize(
    ("path", "link", "target"),
    [
        ("l", "l", "../secret"),
        ("l", "l", "{ws}/../secret"),
        ("l", "l", "/etc/passwd"),
        ("l", "l", "/proc/self/environ"),
        ("l", "l", "out/../../secret"),
        ("d/shadow", "d", "../etc"),
        ("d/shadow", "d", "{ws}/../etc"),
        ("out/deep/../../../secret", "unused", "x"),
        ("root/etc/passwd", "root", "/"),
    ],
)
def test_a_link_that_leads_out_is_refused(workspace, tree, path, link, target):
    (workspace / link).symlink_to(target.format(ws=workspace))
    with pytest.raises(OSError, match=r"a link leads out of .*follow_links"):
        tree.open(path)


def test_a_path_through_a_linked_directory(workspace, tree):
    (workspace / "d").symlink_to("out/deep")
    assert read(tree, "d/b") == b"b"
    assert tree.open("d") is None
    assert tree.names("d") == ["b"]


def test_what_cannot_be_read(workspace, tree):
    (workspace / "loop").symlink_to("loop")
    (workspace / "gone").symlink_to("nowhere")
    os.mkfifo(workspace / "pipe")
    (workspace / "to-pipe").symlink_to("pipe")
    for path, text in [
        ("loop", "Too many levels"),
        ("gone", "No such file"),
        ("out/a/below", "Not a directory"),
        ("pipe", "not a regular file"),
        ("to-pipe", "not a regular file"),
    ]:
        with pytest.raises(OSError, match=text):
            tree.open(path)


def test_a_directory_exchanged_meanwhile_leads_nowhere(workspace, tree, monkeypatch):
    from hostler_agent.commands.tree import posix

    enter = posix._Walk.enter

    def enter_and_lose_the_race(walk, name):
        enter(walk, name)
        if name == "deep":
            (workspace / "out" / "deep").rename(workspace / "moved")
            (workspace / "out" / "deep").symlink_to(workspace.parent / "etc")

    (workspace / "out" / "deep" / "shadow").write_text("the build's own")
    monkeypatch.setattr(posix._Walk, "enter", enter_and_lose_the_race)
    assert read(tree, "out/deep/shadow") == b"the build's own"
    with pytest.raises(OSError, match="leads out"):
        tree.open("out/deep/shadow")


def test_no_descriptor_stays_open(workspace, tree):
    before = psutil.Process().num_fds()
    for path in ("out/deep/b", "out/deep", "out/nothing", "out/a/b"):
        try:
            file = tree.open(path)
        except OSError:
            continue
        if file is not None:
            file.close()
    tree.names("out/deep")
    assert psutil.Process().num_fds() == before


# --- the commands ---------------------------------------------------------------------------------


@pytest.fixture
def from_hub(context, workspace):
    """The context of a command of a Hostler hub's."""
    context.terms = CommandTerms("lease", 1, within=str(workspace))
    return context


async def upload_out(context, workspace):
    return await run(context, "upload_directory", path=f"{workspace}/out", compress=None)


def files_of(context):
    with context.archive() as archive:
        members = [member for member in archive if not member.isdir()]
        assert all(member.isreg() for member in members)
        return {member.name: archive.extractfile(member).read() for member in members}


async def test_a_link_to_a_secret_is_no_artifact(from_hub, workspace):
    (workspace / "l").symlink_to("../secret")
    assert await run(from_hub, "upload_file", path=f"{workspace}/l", blocksize=100) == 1
    assert "leads out" in from_hub.text("stderr")
    assert from_hub.sent() == b""


async def test_with_follow_links_it_is(from_hub, workspace):
    (workspace / "l").symlink_to("../secret")
    from_hub.terms = CommandTerms("lease", 1)
    assert await run(from_hub, "upload_file", path=f"{workspace}/l", blocksize=100) == 0
    assert from_hub.sent() == b"secret"


async def test_a_directory_with_links_that_stay_inside(from_hub, workspace):
    (workspace / "out" / "link").symlink_to("a")
    (workspace / "out" / "dir").symlink_to("deep")
    assert await upload_out(from_hub, workspace) == 0
    assert files_of(from_hub) == {
        "a": b"a",
        "link": b"a",
        "deep/b": b"b",
        "dir/b": b"b",
    }


@pytest.mark.parametrize("target", ["../../secret", "/etc/passwd", "../../etc"])
async def test_a_directory_with_a_link_that_leads_out(from_hub, workspace, target):
    (workspace / "out" / "link").symlink_to(target)
    assert await upload_out(from_hub, workspace) == 1
    assert "leads out" in from_hub.text("stderr")
    assert not any(isinstance(each, UpdateUploadDirectoryUnpack) for each in from_hub.requests)


async def test_a_directory_with_a_link_that_leads_out_and_follow_links(from_hub, workspace):
    (workspace / "out" / "link").symlink_to("../../secret")
    from_hub.terms = CommandTerms("lease", 1)
    assert await upload_out(from_hub, workspace) == 0
    assert files_of(from_hub)["link"] == b"secret"


async def test_a_stock_master_gets_links_as_links(from_hub, workspace):
    (workspace / "out" / "link").symlink_to("a")
    from_hub.terms = None
    assert await upload_out(from_hub, workspace) == 0
    with from_hub.archive() as archive:
        assert archive.getmember("link").issym()


async def test_V15_a_directory_that_holds_itself_ends(from_hub, workspace):
    (workspace / "out" / "self").symlink_to(".")
    assert await upload_out(from_hub, workspace) == 1
    assert "Too many levels" in from_hub.text("stderr")
