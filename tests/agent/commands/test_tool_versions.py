"""`tool_versions`: which executables there are, and what they say they are."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from commandkit import RecordingContext, StandingClock, run

from hostler_agent.commands import BadArguments
from hostler_agent.commands.tool_versions import OUTPUT_BYTES, version_in


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of executables, the first on PATH."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}{os.pathsep}{os.environ['PATH']}")
    return directory


def make(directory: Path, name: str, script: str) -> str:
    path = directory / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


async def ask(context: RecordingContext, *names: str, **args: Any) -> dict[str, Any]:
    assert await run(context, "tool_versions", tools=list(names), **args) == 0
    told = context.value("tool_versions")
    assert list(told) == list(names)
    return told


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("git version 2.39.5 (Apple Git-154)", "2.39.5"),
        ("Python 3.11.2", "3.11.2"),
        ("gcc (Debian 12.2.0-14) 12.2.0\nCopyright (C) 2022", "12.2.0"),
        ("7-Zip (z) 23.01 (x64)", "23.01"),
        ("This is perl 5, version 36, subversion 0 (v5.36.0)", "5.36.0"),
        ("node v18.19.0", "18.19.0"),
        ("go1.21.3", "1.21.3"),
        ("less 590 (GNU regular expressions)", "590"),
        ("tool x86-64 build", None),
        ("usage: tool [options]", None),
        ("", None),
    ],
)
def test_the_first_text_that_looks_like_a_version(text: str, version: str) -> None:
    assert version_in(text) == version


async def test_a_tool_is_found_on_path_and_asked(context, tools):
    path = make(tools, "frob", 'echo "$0: $*" >&2; echo "frob version 4.5.6"')
    assert await ask(context, "frob") == {
        "frob": {"path": path, "version": "4.5.6", "problem": None}
    }


async def test_the_interpreter_that_runs_here_says_its_version(context, monkeypatch):
    directory, name = os.path.split(sys.executable)
    monkeypatch.setenv("PATH", directory)
    told = await ask(context, name)
    assert told[name]["version"] == "{}.{}.{}".format(*sys.version_info[:3])


async def test_a_tool_that_is_not_there_is_none(context, tools):
    assert await ask(context, "no-such-tool") == {
        "no-such-tool": {"path": None, "version": None, "problem": None}
    }


async def test_what_lies_in_the_current_directory_is_no_tool(context, tools, monkeypatch):
    """A build may have left it there."""
    make(tools, "frob", "echo 1.0")
    monkeypatch.chdir(tools)
    monkeypatch.setenv("PATH", f".{os.pathsep}")
    assert (await ask(context, "frob"))["frob"]["path"] is None


async def test_a_version_may_come_where_errors_go_and_with_any_exit_code(context, tools):
    make(tools, "frob", "echo frob 1.8.0 >&2; exit 3")
    assert (await ask(context, "frob"))["frob"]["version"] == "1.8.0"


async def test_a_tool_without_a_version_is_there_all_the_same(context, tools):
    path = make(tools, "frob", "echo unknown option")
    assert await ask(context, "frob") == {"frob": {"path": path, "version": None, "problem": None}}


async def test_a_tool_that_hangs_is_ended_with_all_it_started(context, tools):
    """And the ones after it are asked."""
    pipe = tools / "pipe"
    os.mkfifo(pipe)
    make(tools, "frob", f"sleep 1000 & echo $! > {pipe}; wait")
    make(tools, "next", "echo 2.0")
    clock = StandingClock()
    asking = asyncio.ensure_future(ask(context, "frob", "next", clock=clock, timeout=0.5))
    left = int(await asyncio.to_thread(pipe.read_text))
    await clock.end_all()
    told = await asking
    assert told["frob"]["version"] is None
    assert "0.5" in told["frob"]["problem"]
    assert told["next"]["version"] == "2.0"
    with contextlib.suppress(psutil.NoSuchProcess):  # its parent may be slow to bury it
        assert psutil.Process(left).status() == psutil.STATUS_ZOMBIE


async def test_a_tool_that_floods_takes_no_memory(context, tools):
    make(tools, "frob", f"echo 3.1; head -c {OUTPUT_BYTES * 50} /dev/zero; echo 9.9")
    assert (await ask(context, "frob"))["frob"]["version"] == "3.1"


async def test_a_tool_that_cannot_be_started_says_why(context, tools):
    path = tools / "frob"
    path.write_text("no script")
    path.chmod(0o755)
    told = (await ask(context, "frob"))["frob"]
    assert told["version"] is None
    assert told["problem"].startswith("cannot be started: ")


async def test_when_the_time_for_all_is_over_the_rest_is_not_asked(context, tools):
    make(tools, "frob", "sleep 1000")
    make(tools, "next", "echo 2.0")
    told = await ask(context, "frob", "next", timeout=5, maxTime=0.3)
    assert told["next"]["version"] is None
    assert told["next"]["problem"] == "not asked: 0.3 s were over"


@pytest.mark.parametrize(
    "names", [None, "git", [7], ["/bin/git"], [""], [".."], ["a\\b"], ["C:git"], ["x"] * 65]
)
async def test_only_bare_names_are_looked_for(context, names):
    with pytest.raises(BadArguments, match="list of executables' names"):
        await run(context, "tool_versions", tools=names)
