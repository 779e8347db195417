"""Secrets of a command: how it gets them, and that nothing else shows or keeps them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from commandkit import RecordingContext, run

from hostler_agent import machine
from hostler_agent.commands import COMMANDS, CommandError, secret_files
from hostler_agent.commands.masking import LeaseMasks
from hostler_agent.commands.secret_files import SecretFiles
from hostler_agent.wire.extension import CommandSecret, CommandTerms

VALUE = b"s3cret ${HOME} value"


def give(context: RecordingContext, *secrets: CommandSecret) -> None:
    context.terms = CommandTerms("lease", 1, secrets=secrets)
    context.mask = LeaseMasks().add(context.terms)


def all_said(context: RecordingContext) -> bytes:
    return repr(context.pairs).encode()


def files_below(*places: Path) -> list[Path]:
    return [path for place in places for path in place.rglob("*") if path.is_file()]


def places(context: RecordingContext) -> list[Path]:
    return list(secret_files._places(Path(context.workdir)))


async def test_a_secret_is_in_the_environment_as_it_is_and_nowhere_else(context):
    give(context, CommandSecret("TOKEN", VALUE))
    script = 'printf %s "$TOKEN" | wc -c; echo "$TOKEN"; echo "$TOKEN" >&2; echo "$TOKEN" >> log'
    logs = {"log": {"filename": "log", "follow": False}}
    args = {"workdir": context.workdir, "command": script, "logEnviron": True, "logfiles": logs}
    assert await run(context, "shell", **args) == 0
    assert context.data("stdout") == f"{len(VALUE)}\n***\n".encode()
    assert (context.data("stderr"), context.data("log")) == (b"***\n", b"***\n")
    assert "  TOKEN=***\n" in context.text("header")
    assert VALUE not in all_said(context)


async def test_offsets_count_what_is_masked(context):
    give(context, CommandSecret("TOKEN", VALUE))
    script = 'for n in 1 2 3; do echo "$TOKEN"; echo "$TOKEN" >&2; done; printf "%.9s" "$TOKEN"'
    await run(context, "shell", workdir=context.workdir, command=script)
    offset = 0
    for part in [value for name, value in context.pairs if name == "output"]:
        assert part["offset"] == offset
        offset += len(part["data"])
    assert context.data("stdout") == b"***\n***\n***\n***"


@pytest.mark.parametrize("pty", [False, True])
async def test_a_secret_written_in_two_parts_is_masked(context, pty):
    give(context, CommandSecret("TOKEN", b"correct-horse"))
    script = 'printf correct-; read x < fifo; printf "horse\\n"'
    os.mkfifo(Path(context.workdir, "fifo"))
    args = {"workdir": context.workdir, "command": f"(echo > fifo) & {script}", "usePTY": pty}
    assert await run(context, "shell", **args) == 0
    assert context.data("stdout").replace(b"\r", b"") == b"***\n"


async def test_a_file_has_mode_0400_outside_of_the_workspace_and_is_gone_at_the_end(context):
    give(context, CommandSecret("KEY", b"line one\n\xff\x00\n", is_file=True))
    script = 'echo "$KEY"; stat -c %a "$KEY"; cat "$KEY" | od -An -c'
    assert await run(context, "shell", workdir=context.workdir, command=script) == 0
    path, mode, *content = context.data("stdout").decode().splitlines()
    assert mode == "400"
    assert " ".join(content).split() == [*"line", *"one", "\\n", "377", "\\0", "\\n"]
    assert not Path(path).exists()
    assert not Path(path).is_relative_to(Path(context.workdir, "builds"))
    assert files_below(*places(context)) == []


@pytest.mark.parametrize(
    "script", ["kill -9 $$", "exit 3", "chmod 0 $(dirname $KEY)", 'rm -f "$KEY"']
)
async def test_a_file_is_gone_however_the_command_ends(context, script):
    give(context, CommandSecret("KEY", VALUE, is_file=True))
    await run(context, "shell", workdir=context.workdir, command=script)
    assert files_below(*places(context)) == []


async def test_a_file_is_gone_when_the_program_cannot_be_started(context):
    give(context, CommandSecret("KEY", VALUE, is_file=True))
    assert await run(context, "shell", workdir=context.workdir, command=["/no/such"]) == 127
    assert files_below(*places(context)) == []


async def test_what_a_killed_agent_left_is_swept(tmp_path):
    left = SecretFiles(tmp_path, {"KEY": VALUE})
    assert Path(left.paths["KEY"]).read_bytes() == VALUE
    secret_files.sweep(tmp_path)
    assert not Path(left.paths["KEY"]).exists()
    secret_files.sweep(tmp_path)


async def test_a_directory_of_somebody_else_s_making_is_not_used(tmp_path, monkeypatch):
    memory = tmp_path / "memory"
    memory.mkdir()
    monkeypatch.setattr(machine, "memory_directories", lambda *, common: [memory])
    place, last = secret_files._places(tmp_path)
    place.symlink_to(tmp_path)
    files = SecretFiles(tmp_path, {"KEY": VALUE})
    assert Path(files.paths["KEY"]).is_relative_to(last)
    files.remove()
    secret_files.sweep(tmp_path)
    assert place.is_symlink()  # what is not ours is left alone
    assert not last.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
async def test_a_file_for_another_user_is_his_and_cannot_be_listed(tmp_path):
    files = SecretFiles(tmp_path, {"KEY": VALUE}, owner=(12345, 12345))
    path = Path(files.paths["KEY"])
    found = path.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (12345, 12345, 0o400)
    for above in (path.parent, path.parent.parent):
        assert stat.S_IMODE(above.stat().st_mode) == 0o711
        assert above.stat().st_uid == 0
    files.remove()
    secret_files.sweep(tmp_path)


async def test_a_command_is_not_started_without_the_value_of_its_secret(context):
    """The hub leaves it out when it believes that the agent runs the command already."""
    give(context, CommandSecret("TOKEN", None))
    command = COMMANDS["shell"](context, {"workdir": context.workdir, "command": "echo > ran"})
    with pytest.raises(CommandError, match="TOKEN"):
        await command.run()
    assert not Path(context.workdir, "ran").exists()


def test_no_text_about_the_terms_shows_a_secret():
    terms = CommandTerms("lease", 1, secrets=(CommandSecret("TOKEN", VALUE),))
    assert VALUE.decode() not in repr(terms)
    assert CommandTerms.parse({"hostler": terms.body()}) == terms
