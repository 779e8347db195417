"""How a machine differs from what is expected of it, in words that say what to mend."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from hostler_agent.wire.errors import ProtocolError
from hostler_hub.specs.expectations import Expectations, Findings, MachineCheck, Tool, differences
from hostler_hub.workers.agents.examiner import skew_s, tools_of

FACTS = {"disk_free_mb": 5000, "long_paths": True, "memory_mb": 4096, "os_id": "debian"}
OURS = Findings(FACTS, "the agent (1.0)", clock_skew_s=0.0, tools={"git": Tool("/bin/git", "2.30")})
STOCK = Findings({"os_id": "debian"}, "a foreign agent (4.3.0)")


def said(found: Findings, **expects: Any) -> list[str]:
    return [str(each) for each in differences(Expectations.model_validate(expects), found)]


@pytest.mark.parametrize(
    "expects",
    [
        {},
        {"clock_skew_s": 0},
        {"disk_free_mb": 5000},
        {"long_paths": True},
        {"tools": {"git": ">=2.30"}},
        {"tools": {"git": "*"}},
        {"facts": ["memory_mb >= 4000", "os_id in [debian, ubuntu]"]},
    ],
)
def test_a_machine_that_is_as_expected_differs_in_nothing(expects: dict[str, Any]) -> None:
    assert said(OURS, **expects) == []


@pytest.mark.parametrize(
    ("found", "expects", "text"),
    [
        (
            {"disk_free_mb": 512},
            {"disk_free_mb": 2000},
            "free disk: expected at least 2000 MB → found 512",
        ),
        ({"long_paths": False}, {"long_paths": True}, "long paths: expected true → found false"),
        ({"long_paths": None}, {"long_paths": True}, "long paths: expected true → found null"),
        ({}, {"facts": ["memory_mb >= 8000"]}, "memory_mb: expected >= 8000 → found 4096"),
        ({}, {"facts": ["os_id == fedora"]}, 'os_id: expected == "fedora" → found "debian"'),
        (
            {},
            {"facts": ["gpu == 1"]},
            "gpu: expected == 1 → found nothing: the agent (1.0) does not tell",
        ),
    ],
)
def test_a_fact_that_differs(found: dict[str, Any], expects: dict[str, Any], text: str) -> None:
    assert said(Findings(FACTS | found, "the agent (1.0)"), **expects) == [text]


@pytest.mark.parametrize(("skew", "text"), [(3600.04, "3600.0 s ahead"), (-7.3, "7.3 s behind")])
def test_a_clock_that_differs(skew: float, text: str) -> None:
    (one,) = said(Findings({}, "x", clock_skew_s=skew), clock_skew_s=5)
    assert one == f"clock: expected at most 5 s from the hub's → found {text}"


@pytest.mark.parametrize(
    ("tool", "text"),
    [
        (Tool("/bin/git", "2.20.1"), "2.20.1 (/bin/git)"),
        (Tool("/bin/git", None), "no version in what it says (/bin/git)"),
        (Tool("/bin/git", None, "10 s elapsed"), "10 s elapsed (/bin/git)"),
        (Tool(), "none on the agent's PATH"),
        (None, "none on the agent's PATH"),
    ],
)
def test_a_tool_that_differs(tool: Tool | None, text: str) -> None:
    found = Findings({}, "x", tools={} if tool is None else {"git": tool})
    assert said(found, tools={"git": ">=2.30"}) == [f"git: expected >=2.30 → found {text}"]


def test_any_version_will_do_but_the_tool_must_be_there() -> None:
    assert said(Findings({}, "x", tools={"go": Tool("/bin/go")}), tools={"go": "*"}) == []
    (one,) = said(Findings({}, "x", tools={"go": Tool()}), tools={"go": "*"})
    assert one == "go: expected any version → found none on the agent's PATH"


def test_of_a_stock_worker_everything_that_it_does_not_tell_is_a_difference() -> None:
    texts = said(
        STOCK,
        clock_skew_s=5,
        disk_free_mb=1,
        tools={"git": ">=2"},
        facts=["os_id == debian"],
    )
    assert [text.split(":")[0] for text in texts] == ["clock", "free disk", "git"]
    assert all(
        text.endswith("found nothing: a foreign agent (4.3.0) does not tell") for text in texts
    )


def test_all_differences_are_told_at_once() -> None:
    expects = Expectations(disk_free_mb=9000, tools={"git": ">=3"})
    exam = MachineCheck(1.0, expects, differences(expects, OURS))
    assert not exam.met
    assert exam.summary == (
        "not as expected: free disk: expected at least 9000 MB → found 5000; "
        "git: expected >=3 → found 2.30 (/bin/git)"
    )


@pytest.mark.parametrize(
    ("expects", "words"),
    [
        ({"tools": {"python3": 3.9}}, 'must be a text in quotes, such as ">=3.9"'),
        ({"tools": {"python3": "3.9"}}, "is no range of versions: at character 1"),
        ({"tools": {"../bin/x": "*"}}, "should match pattern"),
        ({"tools": {f"t{n}": "*" for n in range(33)}}, "at most 32"),
        ({"facts": ["memory > much"]}, "is no condition on a fact"),
        ({"disk_free_mb": 0}, "greater than or equal to 1"),
        ({"clock_skew_s": -1}, "greater than or equal to 0"),
        ({"long_paths": "yes"}, "valid boolean"),
        ({"disk": 1}, "Extra inputs"),
    ],
)
def test_what_cannot_be_expected_is_told(expects: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match="(?s)." + words.replace("+", ".")):
        Expectations.model_validate(expects)


@pytest.mark.parametrize(
    ("told", "skew"), [(100.0, 0.0), (104.0, 0.0), (102.0, 0.0), (99.0, -1.0), (110.0, 6.0)]
)
def test_A9_a_slow_answer_makes_no_clock_wrong(told: float, skew: float) -> None:
    assert skew_s(told, 100.0, 104.0) == skew


@pytest.mark.parametrize("told", [None, [], "git", {"git": "2.30"}, {"git": {"path": 7}}])
def test_nonsense_about_tools_is_refused(told: Any) -> None:
    with pytest.raises(ProtocolError, match="tool_versions"):
        tools_of(told)


def test_what_is_told_of_a_tool_is_cut_and_cleaned() -> None:
    (tool,) = tools_of(
        {"git": {"path": "/bin/git", "version": None, "problem": "\x1b[31m" + "x" * 9999}}
    ).values()
    assert tool.problem is not None
    assert len(tool.problem) == 500
    assert "\x1b" not in tool.problem
