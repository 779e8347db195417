"""Limits that our hub asks for, as `shell` takes and tells them."""

from __future__ import annotations

import os
import sys

import pytest
from commandkit import RecordingContext, run

from hostler_agent.commands.ending import limits_text, oom_sentence
from hostler_agent.jobs import choose_containment
from hostler_agent.jobs.plan import Resources
from hostler_agent.jobs.posix import mounts
from hostler_agent.jobs.receipt import Ended, KillReceipt, Usage
from hostler_agent.wire.extension import CommandLimits, CommandTerms

MEBIBYTE = 2**20
HOG = [sys.executable, "-S", "-c", "x = bytearray(b'x' * 2**28)"]

needs_memory_limits = pytest.mark.skipif(
    not os.access(mounts.own_cgroups().get("memory", "/none"), os.W_OK),
    reason="needs the memory controller of cgroup version 1, and to be root",
)


def limit(context: RecordingContext, **limits: int) -> RecordingContext:
    context.terms = CommandTerms("lease", 1, limits=CommandLimits(**limits))
    return context


@needs_memory_limits
async def test_a_command_that_the_oom_killer_ended_says_so_in_words(context):
    limit(context, memory_bytes=64 * MEBIBYTE)
    assert await run(context, "shell", workdir=context.workdir, command=HOG) == -1
    assert context.value("failure_reason") == "oom_killed"
    receipt = context.value("receipt")
    assert (receipt["ended"], receipt["oom_kills"], receipt["exit_code"]) == ("oom_killed", 1, None)
    assert receipt["why"].startswith("killed by the kernel's OOM killer: limit 64 MiB, peak 6")
    assert f"\n{receipt['why']}\n" in context.text("header")
    assert "(limits: memory 64 MiB)" in context.text("header")


@needs_memory_limits
async def test_a_shell_whose_child_was_killed_says_so_too(context):
    limit(context, memory_bytes=64 * MEBIBYTE)
    hog = " ".join(f'"{word}"' for word in HOG)
    args = {"workdir": context.workdir, "command": f"{hog}; exit 7"}
    assert await run(context, "shell", **args) == 7
    assert context.value("failure_reason") == "oom_killed"
    assert context.value("receipt")["ended"] == "exited"
    why = "the kernel's OOM killer took 1 of its processes: limit 64 MiB, peak "
    assert context.value("receipt")["why"].startswith(why)


@needs_memory_limits
async def test_a_command_that_survives_its_childs_death_has_not_failed(context):
    limit(context, memory_bytes=64 * MEBIBYTE)
    hog = " ".join(f'"{word}"' for word in HOG)
    args = {"workdir": context.workdir, "command": f"{hog} || exit 0"}
    assert await run(context, "shell", **args) == 0
    assert not context.has("failure_reason")
    assert context.value("receipt")["oom_kills"] == 1


async def test_a_limit_that_cannot_be_had_is_no_start(context):
    subreaper = choose_containment("subreaper", "test-limits")
    try:
        context.containment = subreaper
        limit(context, memory_bytes=64 * MEBIBYTE)
        assert await run(context, "shell", workdir=context.workdir, command=["/bin/true"]) == -1
    finally:
        await subreaper.aclose()
    assert context.value("failure_reason") == "not_started"
    why = (
        "cannot start the command: memory cannot be limited on this worker: "
        "controller memory needs cgroups, and a subreaper keeps the jobs here"
    )
    assert context.value("receipt")["why"] == why
    assert context.text("stderr") == f"{why}\n"


async def test_a_stock_masters_command_asks_for_nothing_of_this(context):
    args = {"limits": {"memory_bytes": 1}, "batch_files": True}
    rc = await run(context, "shell", workdir=context.workdir, command=["/bin/true"], **args)
    assert rc == 0
    assert "(limits" not in context.text("header")


def test_whose_memory_it_was_is_told_apart():
    usage = Usage(3 * MEBIBYTE // 2, oom_kills=2)
    receipt = KillReceipt(Ended.EXITED, 137, "cgroup2", usage=usage)
    assert oom_sentence(receipt, Resources()) == (
        "the kernel's OOM killer took 2 of its processes: no limit of its own, so the machine or a "
        "cgroup above was out of memory, peak 1.5 MiB"
    )
    assert oom_sentence(KillReceipt(Ended.EXITED, 137, "cgroup2"), Resources(1)) is None


def test_the_header_names_all_limits():
    assert limits_text(Resources(2**30, 50, 25)) == "memory 1024 MiB, processes 50, CPU 25 %"
