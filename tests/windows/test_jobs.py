"""Jobs on Windows: nothing of one is alive when it is over, whatever it does."""

from __future__ import annotations

import os
import re
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from peers.wine import Windows

pytestmark = pytest.mark.peer("wine")

TORTURE = int(os.environ.get("HOSTLER_TORTURE", "30"))
"""How many escapes and assignments; 500 in the full run, which takes some minutes in Wine."""


def assert_empty(told: dict[str, Any]) -> None:
    assert told["survivors"] == []
    assert told["living"] == []
    assert told["containment"] == "job_object"


@pytest.mark.parametrize("start", ["run_child", "suspended_start"])
def test_a_process_is_born_in_its_job(windows: Windows, start: str) -> None:
    """E4; the second is the way of a Windows that cannot create processes in jobs."""
    if start == "run_child":
        told = windows.call("jobs.run_child", ["is_in_job"])
    else:
        told = windows.call("attach.suspended_start")
    assert told["stdout"] == "in job: True\r\n"
    assert (told["ended"], told["rc"]) == ("exited", 0)
    assert_empty(told)


def test_commands_and_their_codes(windows: Windows) -> None:
    told = windows.call("jobs.run", "echo one& echo two 1>&2& exit 3")
    assert (told["stdout"], told["stderr"]) == ("one\r\n", "two \r\n")
    assert (told["ended"], told["exit_code"], told["rc"]) == ("exited", 3, 3)
    assert told["usage"]["cpu_s"] > 0
    assert_empty(told)


def test_a_crash_has_its_code(windows: Windows) -> None:
    """An access violation's code does not fit 32 bits with a sign."""
    assert windows.call("jobs.run_child", ["exits", 0xC0000005])["rc"] == 0xC0000005


@pytest.mark.timeout(3000)
def test_nobody_escapes(windows: Windows) -> None:
    """E2: each command's first act is to start a detached grandchild in a group of its own."""
    told = windows.call("jobs.escapes", TORTURE, within_s=60 + 4 * TORTURE)
    assert told["told_pids"] == TORTURE
    assert told["least_seen"] >= 2
    assert (told["living"], told["survivors"], told["codes"]) == ([], [], [0])


def test_breaking_away_is_refused(windows: Windows) -> None:
    assert windows.call("jobs.run_child", ["breakaway"])["stdout"] == "refused 5\r\n"


def test_a_tree_is_killed_at_once(windows: Windows) -> None:
    told = windows.call("jobs.interrupt", ["tree", 20], {})
    assert told["told_pids"] == 20
    assert told["pids_seen"] >= 20
    assert (told["ended"], told["exit_code"], told["rc"]) == ("killed", None, -1)
    assert_empty(told)


def test_who_is_asked_to_end_may_obey(windows: Windows) -> None:
    """E1. Wine 8 knows no CTRL_BREAK, so that here it is CTRL_C that asks."""
    told = windows.call("jobs.interrupt", ["obey_break"], {"sigterm_time_s": 60})
    assert (told["ended"], told["exit_code"]) == ("killed", 7)
    assert told["took_s"] < 60
    assert_empty(told)


def test_who_ignores_it_is_killed(windows: Windows) -> None:
    """E1"""
    told = windows.call("jobs.interrupt", ["ignore_break"], {"sigterm_time_s": 1})
    assert (told["ended"], told["exit_code"], told["rc"]) == ("killed", None, -1)
    assert told["took_s"] >= 1
    assert_empty(told)


def test_held_output_delays_the_end_and_is_named(windows: Windows) -> None:
    """E8"""
    told = windows.call("jobs.run_child", ["hold_output"])
    assert told["held_output"] == ["python.exe"]
    assert (told["ended"], told["rc"], told["told_pids"]) == ("exited", 0, 1)
    assert_empty(told)


@pytest.mark.parametrize(
    ("limits", "ended"),
    [
        ({"timeout_s": 1}, "timeout_without_output"),
        ({"max_time_s": 1}, "timeout"),
    ],
)
def test_limits_of_time(windows: Windows, limits: dict[str, float], ended: str) -> None:
    told = windows.call("jobs.run_child", ["simple"], {"limits": limits})
    # Whether it had come to say anything by then depends on the machine.
    assert (told["ended"], told["rc"], told["pids_seen"] >= 1) == (ended, -1, True)
    assert len(told["stops"]) == 1
    assert_empty(told)


def test_a_limit_of_lines(windows: Windows) -> None:
    told = windows.call("jobs.run_child", ["flood", 10_000_000], {"limits": {"max_lines": 3}})
    assert (told["ended"], told["rc"]) == ("max_lines", -1)
    assert told["stdout"].count("\n") < 20


def test_a_flood_waits_for_its_reader(windows: Windows) -> None:
    """E11: what nobody takes stays in the pipe, and nothing of it is lost."""
    told = windows.call("jobs.held_back", 10_000_000)
    assert told["held"] == told["before"] <= 65536
    assert told["largest"] <= 65536
    assert told["stdout"] == 10_000_000


def test_bytes_arrive_as_they_are(windows: Windows) -> None:
    """E12"""
    data = bytes(range(256)) + b"\r\n\n\r\x1a\0end"
    told = windows.call("jobs.run_child", ["write", data.hex()])
    assert told["stdout"].encode("latin-1") == data


def test_standard_input_is_written_and_closed(windows: Windows) -> None:
    assert windows.call("jobs.run_child", ["echo"], {"stdin": 0})["stdout"] == "0\r\n"
    assert windows.call("jobs.run_child", ["echo"], {"stdin": 300_000})["stdout"] == "300000\r\n"
    # One that does not read all of it is no failure.
    assert windows.call("jobs.run_child", ["exits", 4], {"stdin": 300_000})["rc"] == 4


CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07")


def shown(told: dict[str, Any]) -> list[str]:
    """The lines on a terminal."""
    return CONTROL.sub("", told["stdout"]).split("\r\n")


def test_a_terminal_is_the_jobs_own(windows: Windows) -> None:
    told = windows.call("jobs.run_child", ["terminal"], {"use_pty": True})
    assert shown(told)[:2] == ["True True 200x50", "in job: True"]
    assert (told["ended"], told["rc"], told["held_output"]) == ("exited", 0, [])
    assert_empty(told)


def test_what_is_written_last_to_a_terminal_is_not_lost(windows: Windows) -> None:
    told = windows.call("jobs.run", "for /l %i in (1,1,40) do @echo line %i>CON", {"use_pty": True})
    assert shown(told)[:40] == [f"line {number}" for number in range(1, 41)]


def test_a_job_on_a_terminal_is_killed_like_any_other(windows: Windows) -> None:
    told = windows.call("jobs.interrupt", ["terminal_tree", 6], {}, True)
    assert told["told_pids"] == 7
    assert (told["ended"], told["rc"]) == ("killed", -1)
    assert_empty(told)


def test_what_cannot_start_on_a_terminal_says_why(windows: Windows) -> None:
    told = windows.call("jobs.run", ["nope"], {"use_pty": True})
    assert told == {"error": "StartFailed", "text": "No such file or directory: nope"}


def test_a_cancelled_job_is_emptied(windows: Windows) -> None:
    assert windows.call("jobs.cancelled") == {"cancelled": True, "pids": 10, "living": []}


def test_jobs_side_by_side(windows: Windows) -> None:
    assert windows.call("jobs.side_by_side", 8)["stdout"] == [str(each) for each in range(8)]


def test_no_handle_but_the_three_is_inherited(windows: Windows) -> None:
    seen = windows.call("jobs.inherited_handles")
    assert seen == {"plain": "known: True\r\n", "ours": "known: False\r\n"}


def test_no_handle_is_lost(windows: Windows) -> None:
    assert windows.call("jobs.lost_handles") == 0


def test_what_cannot_start_says_why(windows: Windows) -> None:
    """E15"""
    assert windows.call("jobs.run", ["nope"]) == {
        "error": "StartFailed",
        "text": "No such file or directory: nope",
    }
    assert windows.call("jobs.run", ["cmd"], {"workdir": "C:\\nope"}) == {
        "error": "StartFailed",
        "text": "No such file or directory: C:\\nope",
    }


def test_what_does_not_fit_is_refused_before_the_start(windows: Windows) -> None:
    """E13"""
    refusals = windows.call("jobs.too_large")
    assert [refusal["error"] for refusal in refusals] == ["PlanRefused"] * 3
    assert refusals[0]["text"].endswith("at most 32766 fit (Windows)")
    assert refusals[1]["text"].endswith("at most 8191 fit (cmd.exe)")
    assert refusals[2]["text"].startswith("environment variable 'A' has 33002 characters")


def test_limits_are_set(windows: Windows) -> None:
    """Wine 8 enforces neither the number of processes nor the processor's rate: only that they are
    asked for shows here (E3)."""
    kill_on_close, no_dialogue, job_memory, active_process = 0x2000, 0x400, 0x200, 0x8
    assert windows.call("jobs.calls_made") == [
        {
            "flags": kill_on_close | no_dialogue | job_memory | active_process,
            "processes": 7,
            "memory_bytes": 64 << 20,
        },
        {"flags": 5, "rate": 5000},
    ]


def test_the_death_of_the_agent_ends_its_jobs(windows: Windows) -> None:
    """E9: kill -9; the kernel closes the job's only handle."""
    agent = windows.start(
        "-m",
        "call",
        "jobs.agent_with_tree",
        "[]",
        "90",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert agent.stdout is not None
    line = agent.stdout.readline()
    while not line.startswith(b"pids "):
        assert line, "the agent has ended"
        line = agent.stdout.readline()
    pids = [int(word) for word in line.split()[1:]]
    assert len(pids) == 20
    agent.kill()
    agent.wait()
    agent.stdout.close()
    deadline = time.monotonic() + 60
    while windows.call("jobs.living_of", pids):
        assert time.monotonic() < deadline
