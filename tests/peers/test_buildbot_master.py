"""Our agent serves a stock Buildbot master: every step that its documentation promises a worker."""

from __future__ import annotations

import asyncio
import hashlib
import os
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from e2e.gates import Gate
from peers import buildbot_master
from peers.buildbot_master import CANCELLED, FAILURE, SUCCESS, Master

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

# One master and one agent serve all tests of this file, so they share its loop.
pytestmark = [pytest.mark.peer("buildbot"), pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def master(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Master]:
    directory = tmp_path_factory.mktemp("buildbot")
    async with buildbot_master.master(directory / "master") as running:
        with buildbot_master.agent(running, directory):
            yield running


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    made = Gate(tmp_path, "gate")
    yield made
    made.close()


def shell(*command: str, **arguments: Any) -> tuple[str, dict[str, Any]]:
    return "ShellCommand", {"command": list(command), **arguments}


def digests(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file()
    }


async def test_output_exit_code_and_environment(master: Master) -> None:
    script = 'echo out; echo err >&2; printf "%s\\n" "$NAME"; printf "\\377\\n"; exit 7'
    build = await master.build(shell("sh", "-c", script, env={"NAME": "grün \N{SNOWMAN}"}))
    (step,) = build.steps
    assert (build.results, step.results) == (FAILURE, FAILURE)
    assert step.lines("e") == ["err"]
    assert step.lines("o") == ["out", "grün \N{SNOWMAN}", "\N{REPLACEMENT CHARACTER}"]
    assert "program finished with exit code 7" in step.log


async def test_long_output_arrives_whole_and_in_order(master: Master) -> None:
    build = await master.build(shell("seq", "100000", "150000"))
    assert build.results == SUCCESS
    assert build.steps[0].lines("o") == [str(number) for number in range(100_000, 150_001)]


async def test_directories_and_questions(master: Master, tmp_path: Path) -> None:
    """I01, I02: what the master does with files, beside commands."""
    build = await master.build(
        ("MakeDirectory", {"dir": "build/tree/deep"}),
        shell("sh", "-c", "echo content > deep/file; ln -s file deep/link", workdir="build/tree"),
        ("CopyDirectory", {"src": "build/tree", "dest": "build/copy"}),
        ("FileExists", {"file": "build/copy/deep/file"}),
        shell("sh", "-c", "cmp tree/deep/file copy/deep/file && readlink copy/deep/link"),
        ("RemoveDirectory", {"dir": "build/tree"}),
        ("RemoveDirectory", {"dir": "build/copy"}),
        ("FileExists", {"file": "build/copy/deep/file"}),
    )
    assert [step.results for step in build.steps] == [SUCCESS] * 7 + [FAILURE]
    assert build.steps[4].lines("o") == ["file"]


async def test_I06_a_property_from_a_command(master: Master) -> None:
    command = ["sh", "-c", "echo 'é 1'"]
    build = await master.build(("SetPropertyFromCommand", {"command": command, "property": "told"}))
    assert (build.results, build.properties["told"]) == (SUCCESS, "é 1")


async def test_I08_uploads_are_equal_to_their_sources(master: Master, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "sub").mkdir(parents=True)
    (source / "big").write_bytes(os.urandom(3_000_001))
    (source / "sub" / "empty").write_bytes(b"")
    (source / "sub" / "grün").write_text("x")
    build = await master.build(
        ("FileUpload", {"workersrc": str(source / "big"), "masterdest": str(target / "big")}),
        ("DirectoryUpload", {"workersrc": str(source), "masterdest": str(target / "plain")}),
        (
            "DirectoryUpload",
            {"workersrc": str(source), "masterdest": str(target / "gz"), "compress": "gz"},
        ),
    )
    assert [step.results for step in build.steps] == [SUCCESS] * 3
    assert (target / "big").read_bytes() == (source / "big").read_bytes()
    assert digests(target / "plain") == digests(target / "gz") == digests(source)


@pytest.mark.timeout(400)
async def test_I08_100_MB_are_equal_to_their_source(master: Master, tmp_path: Path) -> None:
    """Uploads only: what this master answers to reads is null (see N4 below)."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    (source / "large").write_bytes(os.urandom(1_000_000) * 100)
    build = await master.build(
        ("FileUpload", {"workersrc": str(source / "large"), "masterdest": str(target / "large")}),
        ("DirectoryUpload", {"workersrc": str(source), "masterdest": str(target / "all")}),
        patience_s=300,  # this master takes its time for them, the more on a busy machine
    )
    assert [step.results for step in build.steps] == [SUCCESS] * 2
    assert digests(target / "all") == digests(source)
    assert digests(target)["large"] == digests(source)["large"]


async def test_I09_several_uploads_by_glob(master: Master, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "c.d").mkdir(parents=True)
    for name in ("a.bin", "b.bin", "c.d/inner", "other"):
        (source / name).write_bytes(os.urandom(10_000))
    build = await master.build(
        (
            "MultipleFileUpload",
            {
                "workersrcs": ["*.bin", "c.d"],
                "masterdest": str(target),
                "workdir": str(source),
                "glob": True,
            },
        ),
    )
    assert build.results == SUCCESS
    expected = digests(source)
    del expected["other"]
    assert digests(target) == expected


async def test_I10_I11_a_missing_source_fails_and_leaves_no_file(
    master: Master, tmp_path: Path
) -> None:
    options = {"haltOnFailure": False, "flunkOnFailure": True}
    gone, target = str(tmp_path / "gone"), tmp_path / "target"
    build = await master.build(
        ("FileUpload", {"workersrc": gone, "masterdest": str(target / "file"), **options}),
        ("DirectoryUpload", {"workersrc": gone, "masterdest": str(target / "dir"), **options}),
    )
    assert [step.results for step in build.steps] == [FAILURE, FAILURE]
    for step in build.steps:
        assert gone in step.log
    assert not [path for path in target.rglob("*") if path.is_file() and path.stat().st_size]


async def test_N4_a_download_that_brings_nothing_is_a_failure(
    master: Master, tmp_path: Path
) -> None:
    """This master answers reads with null: its own worker makes an empty file of it, and says 0."""
    source = tmp_path / "source"
    source.write_bytes(b"content")
    options = {"haltOnFailure": False}
    destinations = [tmp_path / "string", tmp_path / "file"]
    build = await master.build(
        ("StringDownload", {"s": "content", "workerdest": str(destinations[0]), **options}),
        (
            "FileDownload",
            {"mastersrc": str(source), "workerdest": str(destinations[1]), **options},
        ),
    )
    assert [step.results for step in build.steps] == [FAILURE, FAILURE]
    for step in build.steps:
        assert "the hub sent no data" in step.log
    assert not any(path.exists() for path in destinations)


async def test_I05_interrupting_a_command_ends_it(master: Master, gate: Gate) -> None:
    building = asyncio.create_task(master.build(shell(*gate.command)))
    job = await gate.entered()
    master.stop_build("enough of it")
    build = await building
    assert build.results == CANCELLED
    assert not job.lives()


async def test_timeouts_end_a_command(master: Master, gate: Gate) -> None:
    build = await master.build(
        shell(*gate.command, timeout=1, haltOnFailure=False),
        shell(*gate.command, timeout=None, maxTime=1),
    )
    assert [step.results for step in build.steps] == [FAILURE, FAILURE]
    assert "1 seconds without output" in build.steps[0].log
    assert "1 seconds elapsed" in build.steps[1].log
    while gate.has_been_entered():  # a busy machine may have taken the second to get that far
        assert not (await gate.entered()).lives()


async def test_log_files_are_watched(master: Master) -> None:
    script = "echo stdio; echo first > app.log; echo second >> app.log"
    build = await master.build(
        shell("sh", "-c", script, logfiles={"app": "app.log"}, workdir="build/watched")
    )
    assert build.results == SUCCESS
    (step,) = build.steps
    assert step.lines("o") == ["stdio"]
    assert step.lines("o", log="app") == ["first", "second"]


async def test_a_followed_log_file_brings_only_what_is_new(master: Master) -> None:
    logfiles = {
        "whole": {"filename": "whole.log"},
        "rest": {"filename": "rest.log", "follow": True},
    }
    build = await master.build(
        shell("sh", "-c", "echo before | tee whole.log > rest.log", workdir="build/followed"),
        shell(
            *("sh", "-c", "echo now | tee -a whole.log >> rest.log"),
            logfiles=logfiles,
            workdir="build/followed",
        ),
    )
    assert build.results == SUCCESS
    assert build.steps[1].lines("o", log="whole") == ["before", "now"]
    assert build.steps[1].lines("o", log="rest") == ["now"]


async def test_a_terminal_and_initial_input(master: Master) -> None:
    build = await master.build(
        shell("sh", "-c", "test -t 0 && test -t 1 && tty", usePTY=True),
        shell("sh", "-c", "test ! -t 0 && sha256sum", initialStdin="gr\N{SNOWMAN}n\n" * 10_000),
    )
    assert [step.results for step in build.steps] == [SUCCESS] * 2
    assert build.steps[0].lines("o")[0].startswith("/dev/pts/")
    digest = hashlib.sha256(("gr\N{SNOWMAN}n\n" * 10_000).encode()).hexdigest()
    assert build.steps[1].lines("o") == [f"{digest}  -"]


async def test_A16_a_lost_connection_ends_the_commands_and_the_build_is_run_again(
    master: Master, gate: Gate
) -> None:
    """W02, L21: the master calls the build lost; so must the agent, and come back."""
    building = asyncio.create_task(master.build(shell(*gate.command)))
    first = await gate.entered()
    master.cut()
    second = await gate.entered()
    await first.ended()
    assert second.lives()
    await gate.send(b"again\n")
    gate.open()
    build = await building
    assert (build.results, build.builds) == (SUCCESS, 2)
    assert build.steps[0].lines("o") == ["again"]
