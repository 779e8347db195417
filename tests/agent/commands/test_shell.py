"""`shell`, as a stock master and as our hub see it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from commandkit import RecordingContext, StandingClock, run

from hostler_agent.commands import COMMANDS, BadArguments, CommandError, Settings
from hostler_agent.wire.extension import CommandTerms


async def test_output_comes_as_content_lists(context):
    rc = await run(context, "shell", workdir=context.workdir, command="echo out; echo err >&2")
    assert rc == 0
    assert (context.text("stdout"), context.text("stderr")) == ("out\n", "err\n")
    text, positions, times = context.value("stdout")
    assert (text, positions, len(times)) == ("out\n", [3], 1)
    assert not context.has("receipt")


async def test_raw_output_has_one_offset_for_all_streams(raw_context):
    context = raw_context
    script = "echo out; echo err >&2; printf '\\377\\0'"
    assert await run(context, "shell", workdir=context.workdir, command=script) == 0
    offset = 0
    for part in [value for name, value in context.pairs if name == "output"]:
        assert part["offset"] == offset
        offset += len(part["data"])
    assert context.data("stdout") == b"out\n\xff\0"
    assert context.data("stderr") == b"err\n"
    assert context.text("header").endswith("program finished with exit code 0\n")


async def test_the_receipt_comes_before_the_return_code(raw_context):
    await run(raw_context, "shell", workdir=raw_context.workdir, command=["/bin/true"])
    names = [name for name, _value in raw_context.pairs]
    assert names[-3:] == ["receipt", "rc", "elapsed"]
    receipt = raw_context.value("receipt")
    assert (receipt["ended"], receipt["exit_code"], receipt["survivors"]) == ("exited", 0, [])
    assert receipt["containment"] == raw_context.containment.name


async def test_a_quick_command_takes_one_update(raw_context):
    await run(raw_context, "shell", workdir=raw_context.workdir, command=["/bin/echo", "x"])
    assert len(raw_context.updates) <= 2


async def test_the_header_tells_what_is_run(context):
    await run(
        context,
        "shell",
        workdir=context.workdir,
        command=["/bin/echo", "two words", ["obfuscated", "secret", "***"]],
        env={"SHOWN": "value"},
        timeout=1,
        maxTime=60,
        clock=StandingClock(),
    )
    header = context.text("header")
    assert header.startswith("/bin/echo 'two words' '***'\n")
    assert f" in dir {context.workdir} (timeout 1 sec) (maxTime 60 secs)\n" in header
    assert "  SHOWN=value\n" in header
    assert "secret" not in header
    assert context.text("stdout") == "two words secret\n"


async def test_log_environ_false_shows_no_environment(context):
    args = {"workdir": context.workdir, "command": "true", "env": {"A": "hidden-value"}}
    await run(context, "shell", logEnviron=False, **args)
    assert "hidden-value" not in context.text("header")


async def test_a_command_knows_who_it_is(context):
    script = 'echo "$HOSTLER_INSTANCE $HOSTLER_COMMAND $PWD"'
    env = {"HOSTLER_COMMAND": "forged"}
    await run(context, "shell", workdir=context.workdir, command=script, env=env)
    expected = f"{context.containment.root_name} 1 {context.workdir}\n"
    assert context.text("stdout") == expected


async def test_a_missing_workdir_is_made(context):
    workdir = f"{context.workdir}/a/b"
    assert await run(context, "shell", workdir=workdir, command="pwd") == 0
    assert context.text("stdout") == f"{workdir}\n"


async def test_streams_can_be_unwanted(context):
    script = "echo out; echo err >&2"
    args = {"workdir": context.workdir, "command": script}
    await run(context, "shell", want_stdout=0, want_stderr=False, **args)
    assert not context.has("stdout")
    assert not context.has("stderr")


async def test_initial_stdin_is_given_and_closed(context):
    args = {"workdir": context.workdir, "command": ["/bin/cat"], "initial_stdin": "ünï\n"}
    assert await run(context, "shell", usePTY=True, **args) == 0
    assert context.text("stdout") == "ünï\n"
    assert "disabling usePTY" in context.text("header")


async def test_a_terminal_can_be_had(context):
    assert await run(context, "shell", workdir=context.workdir, command="tty", usePTY=True) == 0
    assert context.text("stdout").startswith("/dev/pts/")


@pytest.mark.parametrize(
    ("script", "limit", "reason"),
    [
        ("sleep 1000", {"timeout": 0.05}, "timeout_without_output"),
        ("sleep 1000", {"maxTime": 0.05}, "timeout"),
        ("yes", {"max_lines": 10}, "max_lines_failure"),
    ],
)
async def test_a_limit_is_told_as_buildbot_does(context, script, limit, reason):
    rc = await run(context, "shell", workdir=context.workdir, command=script, **limit)
    assert (rc, context.value("failure_reason")) == (-1, reason)
    assert "attempting to kill\n" in context.text("header")
    assert "process killed by signal 9\n" in context.text("header")


async def test_interrupt_ends_a_command(context):
    args = {"workdir": context.workdir, "command": "echo Ready; sleep 1000"}
    command = COMMANDS["shell"](context, args)
    running = asyncio.ensure_future(command.run())
    await context.until("Ready")
    command.interrupt("the user said so")
    command.interrupt("again")
    await running
    assert context.value("rc") == -1
    assert "the user said so" in context.text("header")
    assert not context.has("failure_reason")


async def test_i05_interrupt_before_the_start_ends_it_too(context):
    command = COMMANDS["shell"](context, {"workdir": context.workdir, "command": "sleep 1000"})
    command.interrupt("early")
    await command.run()
    assert context.value("rc") == -1


async def test_log_files_come_as_logs(context):
    Path(context.workdir, "kept.log").write_text("old\n")
    await run(
        context,
        "shell",
        workdir=context.workdir,
        command="echo new >> kept.log; echo b > other.log",
        logfiles={"kept": {"filename": "kept.log", "follow": True}, "other": "other.log"},
    )
    assert (context.log("kept"), context.log("other")) == ("new\n", "b\n")


@pytest.mark.parametrize(
    ("command", "rc"), [(["/no/such"], 127), (["/etc/passwd"], 126), (["x" * 200_000], -1)]
)
async def test_e15_what_cannot_start_says_so(raw_context, command, rc):
    context = raw_context
    assert await run(context, "shell", workdir=context.workdir, command=command) == rc
    assert "cannot start the command: " in context.text("stderr")
    assert context.value("failure_reason") == "not_started"
    assert context.value("receipt")["ended"] == "not_started"


async def test_e13_too_large_an_environment_names_the_variable(context):
    env = {"HUGE": "x" * (128 * 1024)}
    assert await run(context, "shell", workdir=context.workdir, command="true", env=env) == -1
    assert "environment variable 'HUGE' has 131078 bytes" in context.text("stderr")


async def test_e15_a_workdir_that_cannot_be_is_a_failure(context):
    workdir = "/etc/passwd/below"
    assert await run(context, "shell", workdir=workdir, command="true") == -1
    assert workdir in context.text("stderr")


async def test_e8_the_log_names_who_held_the_output(context, monkeypatch):
    monkeypatch.setattr("hostler_agent.jobs.run.DRAIN_S", 0.05)
    renamed = 'until read name < /proc/$!/comm && [ "$name" = sleep ]; do :; done'
    script = f"sleep 1000 & {renamed}; echo Ready"
    assert await run(context, "shell", workdir=context.workdir, command=script) == 0
    assert "killed: sleep\n" in context.text("header")


@pytest.mark.parametrize(
    "settings", [Settings(), Settings(buffer_size=1), Settings(max_line_length=2)]
)
@pytest.mark.parametrize("raw", [True, False])
async def test_e12_no_update_is_larger_than_the_wire_allows(context, raw, settings):
    context.terms, context.settings = CommandTerms("lease", 1) if raw else None, settings
    script = "head -c 400000 /dev/zero | tr '\\0' '\\n'; head -c 400000 /dev/zero"
    assert await run(context, "shell", workdir=context.workdir, command=script) == 0
    assert context.data("stdout").count(b"\n") >= 400_000


async def test_e11_a_hub_that_is_slow_gets_it_all(raw_context: RecordingContext):
    context = raw_context
    context.taking.clear()
    args = {"workdir": context.workdir, "command": "head -c 5000000 /dev/zero; echo Done"}
    running = asyncio.ensure_future(COMMANDS["shell"](context, args).run())
    await context.first()
    for _turn in range(100):
        await asyncio.sleep(0)
    assert sum(len(value["data"]) for name, value in context.pairs if name == "output") < 300_000
    context.taking.set()
    await running
    assert len(context.data("stdout")) == 5_000_005


async def test_an_unfinished_last_line_is_not_lost(context):
    await run(context, "shell", workdir=context.workdir, command="printf 'no newline'")
    assert context.text("stdout") == "no newline\n"


async def test_an_update_that_fails_fails_the_command(context):
    async def refuse(_pairs):
        raise ConnectionError("gone")

    context.update = refuse
    with pytest.raises(ConnectionError):
        await run(context, "shell", workdir=context.workdir, command="yes")


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ({}, "shell: argument 'command' must be a string or a list of strings, not null"),
        ({"command": "x"}, "shell: argument 'workdir' is missing; it is a path"),
        ({"command": "x", "workdir": 5}, "argument 'workdir' must be a path, not int"),
        ({"command": [], "workdir": "/"}, "argument 'command'"),
        ({"command": ["a", 5], "workdir": "/"}, "argument 'command'"),
        ({"command": "x", "workdir": "/", "env": []}, "argument 'env' must be a map, not list"),
        ({"command": "x", "workdir": "/", "env": {"A": 5}}, "argument 'env.A' must be a string"),
        ({"command": "x", "workdir": "/", "timeout": "1"}, "argument 'timeout' must be a number"),
        ({"command": "x", "workdir": "/", "maxTime": -1}, "argument 'maxTime' must be a number"),
        ({"command": "x", "workdir": "/", "max_lines": 1.5}, "argument 'max_lines' must be"),
        ({"command": "x", "workdir": "/", "usePTY": "yes"}, "argument 'usePTY' must be true or"),
        ({"command": "x", "workdir": "/", "logfiles": {"a": {}}}, "'logfiles.a.filename'"),
        ({"command": "x", "workdir": "/", "initial_stdin": 5}, "argument 'initial_stdin'"),
    ],
)
async def test_a_wrong_argument_is_one_clear_text(context, args, text):
    with pytest.raises(BadArguments) as failure:
        await COMMANDS["shell"](context, args).run()
    assert text in str(failure.value)
    assert isinstance(failure.value, CommandError)
    assert "\n" not in str(failure.value)
