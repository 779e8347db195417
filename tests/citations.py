"""Where the project cites the fault catalogue, docs/faults.md, and what that says.

An id is a family's letter and a number: ``P13``, ``L07``. It is cited in comments, docstrings,
messages and names of tests; a range (``K2 to K11``, ``L07-L09``, ``test_K2_to_K11_...``) cites all
between its ends. A string that is an id and nothing else is data, and no citation.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
CATALOGUE = ROOT / "docs" / "faults.md"
# What is about ids cites none.
IGNORED = {CATALOGUE, Path(__file__), Path(__file__).with_name("test_faults.py")}
SEARCHED = (
    "agent",
    "hub",
    "plugins",
    "roles",
    "playbooks",
    "molecule",
    "tests",
    "benchmarks",
    "docs",
)
SUFFIXES = {".py", ".md", ".yml", ".yaml", ".j2", ".html", ".js", ".sh", ".ps1"}

# Two digits where Buildbot's tests are numbered, so that the "L0" of test data is none.
ID = r"(?:[KPADENGUV][1-9]\d?|[LMWCXI]\d\d)"
_CITED = re.compile(
    # Not in a word, a number, a colour (#E10), an escape (%A4) or a version (V1.2).
    rf"(?<![A-Za-z0-9#%])(?P<first>{ID})(?:(?:-|\.\.|_to_| to )(?P<last>{ID}))?"
    r"(?![A-Za-z0-9]|\.\d)"
)
_NOQA = re.compile(r"noqa: *[A-Z0-9, ]+")
_ROW = re.compile(rf"^\| (?P<id>{ID}) \| (?P<holds>[^|]+) \| (?P<shown>[^|]+) \|$", re.MULTILINE)
_TEST = re.compile(r"`(?P<path>tests/[\w/]+\.py)::(?P<name>test_\w+)`")


@dataclass(frozen=True)
class Row:
    """A row of the catalogue; `tests` are pairs of a path and a function's name."""

    id: str
    holds: str
    tests: tuple[tuple[str, str], ...]
    untested: bool


def ids(text: str) -> set[str]:
    """The ids that a text cites."""
    found: set[str] = set()
    for match in _CITED.finditer(text):
        first, last = match["first"], match["last"] or match["first"]
        if first[0] != last[0]:
            found |= {first, last}
            continue
        width = len(first) - 1 if first[1] == "0" else 0
        found |= {f"{first[0]}{n:0{width}}" for n in range(int(first[1:]), int(last[1:]) + 1)}
    return found


def name_ids(name: str) -> set[str]:
    """The ids in a test's name, ``test_E4_...`` or ``test_e4_...``; in another function's none."""
    return ids(name.upper().replace("_TO_", "_to_")) if name.startswith("test_") else set()


def python_ids(source: str) -> set[str]:
    """The ids that a Python file cites in its comments, strings and names of tests."""
    found: set[str] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            found |= ids(_NOQA.sub("", token.string))
    tree = ast.parse(source)
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            found |= name_ids(node.name)
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and (id(node) in docs or not re.fullmatch(ID, node.value))
        ):
            found |= ids(node.value)
    return found


@cache
def cited() -> dict[str, set[str]]:
    """Each id that is cited, with the paths of the files that do."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for path in _files():
        text = path.read_text(encoding="utf-8")
        for id_ in python_ids(text) if path.suffix == ".py" else ids(text):
            found[id_].add(str(path.relative_to(ROOT)))
    return found


def _files() -> Iterator[Path]:
    for top in SEARCHED:
        for path in (ROOT / top).rglob("*"):
            if path.suffix in SUFFIXES and path.is_file() and path not in IGNORED:
                yield path


def rows(catalogue: str) -> list[Row]:
    """The catalogue's rows, in their order."""
    return [
        Row(
            id=match["id"],
            holds=match["holds"],
            tests=tuple((test["path"], test["name"]) for test in _TEST.finditer(match["shown"])),
            untested=match["shown"].startswith("no test yet: "),
        )
        for match in _ROW.finditer(catalogue)
    ]


@cache
def functions() -> dict[str, set[str]]:
    """Each test function's name, with the paths of the files that define it."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for path in (ROOT / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                found[node.name].add(str(path.relative_to(ROOT)))
    return found
