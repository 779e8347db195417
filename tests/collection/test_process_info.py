"""Module process_info finds what belongs to a hub and nothing else, among real processes."""

import contextlib
import os
import subprocess
import sys

import pytest
from ansible_collections.hostler.fleet.plugins.modules import process_info

READY = "import sys; print('Ready', flush=True); sys.stdin.read()"


@pytest.fixture
def child():
    """Starts Python processes that say Ready and end with their standard input."""
    with contextlib.ExitStack() as stack:

        def start(*arguments, cwd=None, env=None):
            process = subprocess.Popen(
                [sys.executable, "-c", READY, *arguments],
                cwd=cwd,
                env={**os.environ, **(env or {})},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            assert process.stdout.readline() == "Ready\n"
            return process.pid

        yield start


def found(state_dir, hub_id=None, instances=()):
    return {
        one["pid"]: one["because"] for one in process_info.find(str(state_dir), hub_id, instances)
    }


def test_each_mark_is_found(child, tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    by_mark = child("--mark", "HUB1:INST:1")
    by_path = child("hostler-agent", "--config", str(tmp_path / "agent.json"))
    by_workdir = child(cwd=work)
    by_environment = child(env={"HOSTLER_INSTANCE": "01INSTANCE"})
    assert found(tmp_path, "HUB1", ["01INSTANCE"]) == {
        by_mark: "its arguments carry the hub's mark",
        by_path: "its arguments name the state directory",
        by_workdir: "it works below the state directory",
        by_environment: "its environment names an instance",
    }


def test_strangers_are_not_found(child, tmp_path):
    """A reader of the log, another hub's agent, a directory whose name only begins alike."""
    child("tail", "-f", str(tmp_path / "hub.log"))
    child("--mark", "HUB2:INST:1")
    child("hostler-agent", "--config", f"{tmp_path}-other/agent.json")
    child(cwd=tmp_path)
    child(env={"HOSTLER_INSTANCE": "01OTHER"})
    assert found(tmp_path, "HUB1", ["01INSTANCE"]) == {}


def test_who_asks_is_no_leftover(tmp_path, monkeypatch):
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    assert found(tmp_path) == {}
