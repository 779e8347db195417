"""How tests are dealt out to the processes of pytest-xdist.

The unit that stays in one process, and runs there in order, is a scope: all tests of a peer of
which a machine has one, the tests of a file that share a fixture, or a single test. The longest
begin first and pure tests come last, so that no process is left with a long scope at the end.

The process that deals tests out has not collected them. The first worker process writes the tests'
scopes into a file for it.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from needs import fixtures_of, peers_of
from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xdist.workermanage import WorkerController

# Peers of which there is one on a machine, or that take its names, and the scope of their tests.
_ALONE = {"wine": "wine", "wsman": "wsman", "docker": "docker", "ec2-machines": "ec2"}
_SHARED = ("module", "class", "package")
_FILE = "hostler_scopes"
"""The path of the file, among what a worker process is told at its start."""


def scopes_of(items: Sequence[pytest.Item]) -> dict[str, str]:
    """The scope of every test, by the test's id."""
    files = {_file_of(item): _file_of(item) for item in items}
    for item in items:
        if _shares(item):
            files[_file_of(item)] = _alone(item) or files[_file_of(item)]
    return {
        item.nodeid: _alone(item) or (files[_file_of(item)] if _stays(item) else item.nodeid)
        for item in items
    }


def sort(items: list[pytest.Item]) -> None:
    """The tests of the heaviest scopes first, else in the order they are in."""
    scopes = scopes_of(items)
    weights: dict[str, float] = {}
    for item in items:
        scope = scopes[item.nodeid]
        weights[scope] = max(weights.get(scope, 0.0), _weight_of(item))
    items.sort(key=lambda item: -weights[scopes[item.nodeid]])


def _file_of(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0]


def _alone(item: pytest.Item) -> str | None:
    """The scope of the first of its peers that stands alone."""
    return next((_ALONE[peer] for peer in peers_of(item) if peer in _ALONE), None)


def _shares(item: pytest.Item) -> bool:
    return any(fixture.scope in _SHARED for fixture in fixtures_of(item))


def _stays(item: pytest.Item) -> bool:
    """Whether a test stays with its file: it shares a fixture, or is too short to travel alone."""
    return _shares(item) or item.get_closest_marker("unit") is not None


def _weight_of(item: pytest.Item) -> float:
    """What a test may take in s, as far as it is known: its time-out."""
    if _alone(item) is not None:
        return float("inf")
    marker = item.get_closest_marker("timeout")
    return float(marker.args[0]) if marker else 0.0


class Scheduling:
    """A plugin for all processes of a run."""

    def __init__(self) -> None:
        self._directory: tempfile.TemporaryDirectory[str] | None = None

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> LoadScopeScheduling:
        config.option.loadscopereorder = False  # by number of tests: sort() knows better
        return _ByScope(config, log, self._file())

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: WorkerController) -> None:
        node.workerinput[_FILE] = str(self._file())

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        worker = getattr(config, "workerinput", None)
        if worker is None:
            return
        sort(items)
        if worker["workerid"] == "gw0":
            Path(worker[_FILE]).write_text(json.dumps(scopes_of(items)))

    def pytest_unconfigure(self) -> None:
        if self._directory is not None:
            self._directory.cleanup()

    def _file(self) -> Path:
        if self._directory is None:
            self._directory = tempfile.TemporaryDirectory(prefix="hostler-tests-")
        return Path(self._directory.name) / "scopes.json"


class _ByScope(LoadScopeScheduling):
    def __init__(self, config: pytest.Config, log: Any, file: Path) -> None:
        super().__init__(config, log)
        self._file = file
        self._scopes: dict[str, str] = {}

    def _split_scope(self, nodeid: str) -> str:
        if not self._scopes:  # asked first when all workers have collected
            self._scopes = json.loads(self._file.read_text())
        return self._scopes[nodeid]
