"""What tests are marked with, and which of them stay together in one process of pytest-xdist."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
pytestmark = pytest.mark.timeout(120)  # pytest in processes of its own

CONFTEST = """
import os
import pathlib

import needs
import pytest
from scheduling import Scheduling

def pytest_configure(config):
    config.pluginmanager.register(Scheduling())

def pytest_itemcollected(item):
    needs.mark(item)

def pytest_fixture_setup(fixturedef, request):
    needs.check(fixturedef, request)

@pytest.fixture(scope="session")
@needs.needs("wine")
def windows():
    return "windows"

@pytest.fixture
@needs.needs("sshd")
def sshd():
    return "sshd"

@pytest.fixture
def machine(windows):
    return windows

@pytest.fixture(scope="module")
def shared():
    return object()

@pytest.fixture(autouse=True)
def note(request):
    worker = os.environ.get("PYTEST_XDIST_WORKER", "-")
    with open("ran", "a") as file:
        file.write(f"{worker} {request.node.nodeid}\\n")
"""
FILES = {
    "test_a.py": "def test_short(): pass\ndef test_windows(machine): pass\n",
    "test_b.py": "def test_1(shared): pass\ndef test_2(shared): pass\ndef test_3(windows): pass\n",
    "test_c.py": """
import pytest

@pytest.mark.timeout(500)
def test_long(): pass

def test_unmarked(request):
    with pytest.raises(pytest.fail.Exception, match="needs the mark peer\\\\('sshd'\\\\)"):
        request.getfixturevalue("sshd")

@pytest.mark.peer("wine")
def test_marked(request):
    request.getfixturevalue("windows")
""",
}


def ran(directory: Path, *options: str) -> list[tuple[str, str]]:
    """The process and the test, in the order in which they began."""
    (directory / "pytest.ini").write_text("[pytest]\nmarkers =\n    peer(name)\n    unit\n")
    (directory / "conftest.py").write_text(CONFTEST)
    for name, content in FILES.items():
        (directory / name).write_text(content)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", *options],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = (directory / "ran").read_text().splitlines()
    return [(worker, test) for worker, _, test in (line.partition(" ") for line in lines)]


def test_who_uses_a_peer_s_fixture_is_marked_and_who_hides_it_fails(tmp_path: Path) -> None:
    marked = {test for _, test in ran(tmp_path, "-m", "peer", "-p", "no:xdist")}
    assert marked == {
        "test_a.py::test_windows",
        "test_b.py::test_3",
        "test_c.py::test_marked",
    }
    (tmp_path / "ran").unlink()
    assert "test_c.py::test_unmarked" in {test for _, test in ran(tmp_path, "-m", "not peer")}


def test_what_belongs_together_stays_in_one_process_and_the_longest_begin(tmp_path: Path) -> None:
    processes = defaultdict(list)
    for worker, test in ran(tmp_path, "-n", "2"):
        processes[test].append(worker)
    assert all(len(workers) == 1 for workers in processes.values())
    together = [
        {"test_a.py::test_windows", "test_b.py::test_3", "test_c.py::test_marked"},
        {"test_b.py::test_1", "test_b.py::test_2"},
    ]
    for tests in together:
        assert len({processes[test][0] for test in tests}) == 1
    assert processes["test_c.py::test_long"] != processes["test_c.py::test_marked"]
