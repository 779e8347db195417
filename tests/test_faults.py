"""The fault catalogue, docs/faults.md, holds what is cited, and what it says is so."""

from __future__ import annotations

from collections import Counter
from itertools import groupby

import pytest
from citations import CATALOGUE, Row, cited, functions, ids, name_ids, python_ids, rows

pytestmark = pytest.mark.timeout(60)  # all files are read

ROWS = rows(CATALOGUE.read_text(encoding="utf-8"))
NO_TEST = "no test yet: "
# The one function that runs a table of the lifecycle; the names of its cases cite the faults.
TRANSITIONS = "test_transition"
UNTESTED: set[str] = set()


def order(id_: str) -> int:
    return int(id_[1:])


def moved(path: str, name: str, known: dict[str, set[str]]) -> str:
    """A line for sed where a named test is defined elsewhere now, else what is wrong with it."""
    places = known.get(name, set())
    same = [each for each in places if each.rpartition("/")[2] == path.rpartition("/")[2]]
    found = same or sorted(places)
    if len(found) == 1:
        return f"s|{path}::{name}`|{found[0]}::{name}`|"
    return f"# {path}::{name} is in {' '.join(sorted(found)) or 'no file'}"


def test_every_id_that_is_cited_has_a_row() -> None:
    """If it is none, write it otherwise: what looks like an id should be one."""
    known = {row.id for row in ROWS}
    found = cited()
    assert {id_: sorted(found[id_])[:3] for id_ in sorted(found.keys() - known)} == {}


def test_every_row_is_cited() -> None:
    assert sorted({row.id for row in ROWS} - cited().keys()) == []


def test_an_id_has_one_row_in_its_order_and_family() -> None:
    assert [id_ for id_, n in Counter(row.id for row in ROWS).items() if n > 1] == []
    families = [(family, list(group)) for family, group in groupby(ROWS, lambda row: row.id[0])]
    assert len(families) == len({family for family, _ in families})
    for _, group in families:
        numbers = [order(row.id) for row in group]
        assert numbers == sorted(numbers)


def test_no_row_is_passed_over() -> None:
    """A row that the pattern does not match, for a bar or a heading in it, would not be checked."""
    lines = CATALOGUE.read_text(encoding="utf-8").splitlines()
    table = [line for line in lines if line.startswith("|") and "---" not in line]
    assert len(table) - sum(line.startswith("| id |") for line in table) == len(ROWS)


def test_every_row_names_tests() -> None:
    assert {row.id for row in ROWS if row.untested} == UNTESTED
    assert [row.id for row in ROWS if bool(row.tests) == row.untested] == []


def test_the_tests_that_rows_name_are_there() -> None:
    """The failure lists what moved, as lines for FILE of `sed -i -f FILE docs/faults.md`."""
    known = functions()
    named = dict.fromkeys(test for row in ROWS for test in row.tests)
    wrong = [moved(*test, known) for test in named if test[0] not in known.get(test[1], set())]
    assert not wrong, "\n".join(["", *wrong])


def test_the_tables_of_transitions_that_rows_name_have_cases_for_them() -> None:
    root = CATALOGUE.parents[1]
    named = [(row.id, path) for row in ROWS for path, name in row.tests if name == TRANSITIONS]
    tables = {path: ids((root / path).read_text(encoding="utf-8")) for _, path in named}
    assert named
    assert [(id_, path) for id_, path in named if id_ not in tables[path]] == []


# --- what counts as a citation ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("never a bare pid (E6, nomad#23969)", {"E6"}),
        ("A2, A3: a stale instance", {"A2", "A3"}),
        ("a crash (K2..K4)", {"K2", "K3", "K4"}),
        ("L07-L09; K11 to K12", {"L07", "L08", "L09", "K11", "K12"}),
        ("test_K9_to_K11_a_crash", {"K9", "K10", "K11"}),
        ("from P1 to A1", {"P1", "A1"}),
        ("V10's condition, **V14**, `V15`", {"V10", "V14", "V15"}),
        ("| insubstantiating | too late (A2) |", {"A2"}),
        ("L0, L9 and I5 are leases and instances", set()),
        ("K0, P100 and D203 are none", set()),
        ("UTF8, E2BIG, SHA1, M1X, xA1, 4E5", set()),
        ("#E10 and %A4 and V1.2", set()),
        ("404, S603, CVE-2024-11079, T1", set()),
    ],
)
def test_ids_in_a_text(text: str, found: set[str]) -> None:
    assert ids(text) == found


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("test_A8_V10_a_job", {"A8", "V10"}),
        ("test_e13_what_fits", {"E13"}),
        ("test_k2_to_k4_crashes", {"K2", "K3", "K4"}),
        ("test_utf8_and_e2big", set()),
        ("p50", set()),
    ],
)
def test_ids_in_a_name(name: str, found: set[str]) -> None:
    assert name_ids(name) == found


def test_ids_in_a_python_file() -> None:
    source = '''
"""K1 is the module's."""
import x  # noqa: E402, C90 - before (K2)
URL = "P1"  # data
KEYS = {"K3, answered": Death("L0"), "K4": 1}
def A1(): raise Wrong(f"V4: {x} twice")
class B:
    size: int
    """In bytes (V15)."""
    def test_e4_x(self): """A2"""
'''
    assert python_ids(source) == {"K1", "K2", "K3", "V4", "V15", "E4", "A2"}


def test_a_row_is_read() -> None:
    table = (
        "| id | what must hold | shown by |\n|---|---|---|\n"
        "| K1 | It (V6) holds. | `tests/a/test_b.py::test_c`, `tests/d.py::test_K1_e` |\n"
        "| L07 | It does not. | no test yet: for a reason |\n"
    )
    tests = (("tests/a/test_b.py", "test_c"), ("tests/d.py", "test_K1_e"))
    assert rows(table) == [
        Row("K1", "It (V6) holds.", tests, untested=False),
        Row("L07", "It does not.", (), untested=True),
    ]


def test_what_has_moved_is_a_line_for_sed() -> None:
    known = {
        "test_a": {"tests/new/test_x.py"},
        "test_b": {"tests/p/test_x.py", "tests/q/test_y.py"},
    }
    assert moved("tests/test_x.py", "test_a", known) == (
        "s|tests/test_x.py::test_a`|tests/new/test_x.py::test_a`|"
    )
    assert moved("tests/test_y.py", "test_b", known).startswith(
        "s|tests/test_y.py::test_b`|tests/q/"
    )
    assert moved("tests/test_z.py", "test_b", known).startswith("# ")
    assert moved("tests/test_z.py", "test_c", known) == "# tests/test_z.py::test_c is in no file"
