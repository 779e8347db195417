"""Notes how the tests of a run have ended, for `scripts/test`, which takes a second look at some.

    pytest -p second_look --outcomes FILE

FILE is JSON, written by the process that reports, not by those of pytest-xdist that run tests:
`passed` counts tests, `skipped` too, and `failures` has for each test that failed in any phase its
id, the phase and the first line of why it did first, and `real`: the real peers (or "processes")
it ran with, "" for pure tests and the simulation. What fails outside a test has no `real` either.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytest

REASON_CHARS = 500


@dataclass
class Failure:
    """The first failure of a test."""

    test: str
    phase: str
    reason: str
    real: str = ""


@dataclass(eq=False)  # pytest keeps its plugins in sets
class Outcomes:
    """How the tests of one run ended."""

    passed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            real = dict(report.user_properties).get("real", "")
            self._note(Failure(report.nodeid, report.when or "run", reason_of(report), str(real)))
        elif report.skipped:
            self.skipped.append(report.nodeid)
        elif report.when == "call":
            self.passed.append(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._note(Failure(report.nodeid, "collect", reason_of(report)))

    def _note(self, failure: Failure) -> None:
        if all(known.test != failure.test for known in self.failures):
            self.failures.append(failure)


def reason_of(report: pytest.TestReport | pytest.CollectReport) -> str:
    """One line of why it failed."""
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash is not None else str(report.longrepr or "no reason")
    return str(text).strip().partition("\n")[0][:REASON_CHARS]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--outcomes", metavar="FILE", help="write how the tests ended to FILE")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("outcomes") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Outcomes(), "outcomes")


def pytest_sessionfinish(session: pytest.Session) -> None:
    outcomes = session.config.pluginmanager.get_plugin("outcomes")
    if outcomes is not None:
        failed = {failure.test for failure in outcomes.failures}
        outcomes.passed = [test for test in outcomes.passed if test not in failed]
        Path(session.config.getoption("outcomes")).write_text(json.dumps(asdict(outcomes)))
