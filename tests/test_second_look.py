"""scripts/test, by what it does with samples: who gets a second look, and how it exits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(120)  # pytest in processes of its own

SCRIPT = Path(__file__).parents[1] / "scripts" / "test"
CONFTEST = """
import os
import pathlib

import pytest

def pytest_itemcollected(item):
    if "real" in item.name:
        item.user_properties.append(("real", "wine"))

@pytest.fixture
def look(request):
    '''Which look at this test it is, from 1.'''
    file = pathlib.Path(request.node.name)
    number = int(file.read_text()) + 1 if file.exists() else 1
    file.write_text(str(number))
    return number
"""
FLAKY = "def test_real_flaky(look): assert look == 2, 'it took\\ntoo long'"
BROKEN = "def test_real_broken(look): assert False, 'never'"
PURE = "def test_pure(look): assert look == 2"
GOOD = "def test_real_good(look): assert look == 1"
CRASH = "def test_real_crash(look): assert look == 2; os._exit(0)"
SKIPS = "def test_real_skips(look): pytest.skip('gone') if look == 2 else pytest.fail('once')"
SETUP = (
    "@pytest.fixture\ndef late(look): yield look; assert look == 2, 'end'\n"
    "def test_real_late(late): pass"
)
MANY = "@pytest.mark.parametrize('n', range(11))\ndef test_real_many(look, n): assert look == 2"


@dataclass
class Run:
    """What one call of the script said, and its report."""

    code: int
    output: str
    report: dict[str, Any]

    @property
    def flaky(self) -> list[str]:
        return [line for line in self.output.splitlines() if line.startswith("FLAKY: ")]


def run(directory: Path, *samples: str, options: tuple[str, ...] = (), plain: bool = True) -> Run:
    """`plain`: without the plugins of this environment, which take their time to load."""
    (directory / "pytest.ini").write_text("[pytest]\naddopts = -q\n")
    (directory / "conftest.py").write_text(CONFTEST)
    (directory / "test_it.py").write_text("import os\nimport pytest\n\n" + "\n".join(samples))
    part = directory / "part"  # whose conftest does not concern the rest
    part.mkdir()
    (part / "conftest.py").touch()
    (part / "test_part.py").write_text("def test_part(): pass\n")
    report = directory / "report" / "report.json"
    kept = {name: text for name, text in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, SCRIPT, *options],
        cwd=directory,
        env={
            **kept,
            "HOSTLER_TEST_REPORT": str(report),
            **({"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"} if plain else {}),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    return Run(done.returncode, done.stdout + done.stderr, json.loads(report.read_text()))


def looks(directory: Path, test: str) -> int:
    """How often a test was run."""
    return int((directory / test).read_text())


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_a_flaky_test_with_a_peer_is_told_and_does_not_block(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    done = run(tmp_path, FLAKY, GOOD, options=options, plain=not options)
    assert done.code == 0, done.output
    assert looks(tmp_path, "test_real_good") == 1
    (line,) = done.flaky
    assert line.startswith("FLAKY: test_it.py::test_real_flaky, AssertionError: it took")
    (entry,) = done.report["flaky"]
    assert (entry["test"], entry["phase"]) == ("test_it.py::test_real_flaky", "call")
    assert entry["real"] == "wine"
    assert done.report["failed"] == []
    assert (done.report["exit_code"], done.report["passed"]) == (0, 2)


def test_a_fixture_that_fails_at_the_end_of_a_test_fails_it(tmp_path: Path) -> None:
    done = run(tmp_path, SETUP)
    assert done.code == 0, done.output
    assert done.report["flaky"][0]["phase"] == "teardown"
    assert done.report["passed"] == 1  # of the other directory


@pytest.mark.parametrize(
    ("samples", "failed"),
    [
        ([BROKEN, FLAKY], ["test_real_broken"]),
        ([SKIPS], ["test_real_skips"]),
        ([CRASH], ["test_real_crash"]),
    ],
    ids=["fails twice", "skips", "ends the process"],
)
def test_what_does_not_pass_at_the_second_look_is_red(
    tmp_path: Path, samples: list[str], failed: list[str]
) -> None:
    done = run(tmp_path, *samples)
    assert done.code != 0
    assert [each["test"] for each in done.report["failed"]] == [
        f"test_it.py::{name}" for name in failed
    ]
    assert len(done.flaky) == len(samples) - 1


@pytest.mark.parametrize(
    "samples",
    [[PURE, FLAKY], [MANY], ["import no_such_module", FLAKY]],
    ids=["a pure test fails", "many fail", "collection fails"],
)
def test_nobody_gets_a_second_look_where(tmp_path: Path, samples: list[str]) -> None:
    done = run(tmp_path, *samples)
    assert done.code != 0
    assert done.flaky == []
    assert done.report["flaky"] == []
    assert done.report["failed"]
    assert all(file.read_text() == "1" for file in tmp_path.glob("test_*") if not file.suffix)


def test_a_process_that_ends_without_a_word_is_red(tmp_path: Path) -> None:
    done = run(tmp_path, "def test_pure_end(): os._exit(0)")
    assert done.code != 0
    assert done.report["exit_code"] == done.code


def test_a_wrong_option_is_no_test_that_failed(tmp_path: Path) -> None:
    done = run(tmp_path, GOOD, options=("--no-such-option",))
    assert done.code == 4
    assert done.report["failed"] == []
