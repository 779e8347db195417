"""What each kind of step asks of the agent, and what it makes of the answer; no I/O anywhere."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from hostler_hub.builds.errors import StepFailed
from hostler_hub.builds.step_kinds import (
    KINDS,
    Call,
    ReceiveDirectory,
    ReceiveFile,
    SendFile,
    Workspace,
)
from hostler_hub.specs import step as step_spec
from hostler_hub.specs.build import BuildSpec
from hostler_hub.specs.step import StepSpec

WORKSPACE = "/base [x]/builds/B.1"
REGULAR, FOLDER = [0o100644, *range(9)], [0o040755, *range(9)]


def build(step: dict[str, Any], **spec: Any) -> BuildSpec:
    return BuildSpec.model_validate({"steps": [{"name": "s", **step}], **spec})


def play(step: dict[str, Any], *answers: dict[str, Any], **spec: Any) -> tuple[list[Call], Any]:
    """All calls of the step, each answered in turn, and its result."""
    made = build(step, **spec)
    script = KINDS[made.steps[0].kind].script(made.steps[0], Workspace(made, WORKSPACE))
    calls = [next(script)]
    try:
        for answer in answers:
            calls.append(script.send(answer))  # noqa: PERF401 - its end is an exception
    except StopIteration as end:
        return calls, end.value
    raise AssertionError("the script has not ended")


def refused(step: Any) -> list[tuple[Any, ...]]:
    with pytest.raises(ValidationError) as caught:
        StepSpec.model_validate({"name": "s", **step})
    return [error["loc"] for error in caught.value.errors()]


def test_the_table_has_every_kind_of_the_specification() -> None:
    assert set(KINDS) == set(step_spec.KINDS)


# --- the specification ----------------------------------------------------------------------------

ONE_OF_EACH: list[dict[str, Any]] = [
    {"command": ["true"]},
    {"mkdir": ["a"]},
    {"rmdir": ["a", "/b"]},
    {"copy": {"from": "a", "to": "C:\\b"}},
    {"remove": "a"},
    {"stat": "a"},
    {"glob": "**/*.o"},
    {"listdir": "a"},
    {"upload": {"from": "a"}},
    {"upload_directory": {"from": "a"}},
    {"upload_glob": {"pattern": "*"}},
    {"download": {"to": "a", "content": ""}},
    {"set_property": {"command": "x", "name": "p"}},
]


@pytest.mark.parametrize("step", ONE_OF_EACH, ids=lambda step: next(iter(step)))
def test_what_was_stored_is_read_back_and_holds_no_other_kind(step: dict[str, Any]) -> None:
    stored = build(step).model_dump(mode="json")
    assert BuildSpec.model_validate(stored).model_dump(mode="json") == stored
    assert set(stored["steps"][0]) & set(step_spec.KINDS) == set(step)


@pytest.mark.parametrize("step", ONE_OF_EACH, ids=lambda step: next(iter(step)))
def test_exactly_one_kind_and_no_unknown_key(step: dict[str, Any]) -> None:
    assert refused({}) == [()]
    other = {"remove": "x"} if "remove" not in step else {"stat": "x"}
    assert refused({**step, **other}) == [()]
    ((kind, detail),) = step.items()
    if isinstance(detail, dict):
        assert refused({kind: {**detail, "colour": "red"}}) == [(kind, "colour")]


@pytest.mark.parametrize("path", ["", "a\x00b", "a\nb", "a\x1b[m", "../a", "a/../../b", "x" * 1025])
@pytest.mark.parametrize("kind", ["mkdir", "stat", "copy", "upload", "download"])
def test_paths_stay_in_the_workspace_and_hold_no_control_characters(kind: str, path: str) -> None:
    wrong: dict[str, Any] = {
        "mkdir": [path],
        "stat": path,
        "copy": {"from": "a", "to": path},
        "upload": {"from": path, "name": "n"},
        "download": {"to": path, "content": "x"},
    }
    assert {loc[0] for loc in refused({kind: wrong[kind]})} == {kind}


@pytest.mark.parametrize(
    "step",
    [
        {"mkdir": []},
        {"mkdir": "a"},
        {"upload": {"from": "a", "name": "/etc/passwd"}},
        {"upload": {"from": "a", "name": "a/../b"}},
        {"upload": {"from": "a", "name": "a\0b"}},
        {"upload": {"from": "."}},
        {"upload": {"from": "a", "max_size_bytes": step_spec.FILE_SIZE_BYTES + 1}},
        {"upload": {"from": "a", "max_size_bytes": True}},
        {"upload_directory": {"from": "a", "compress": "xz"}},
        {"download": {"to": "a"}},
        {"download": {"to": "a", "content": "x", "file": "0" * 64}},
        {"download": {"to": "a", "content": "\ud800"}},
        {"download": {"to": "a", "file": "A" * 64}},
        {"download": {"to": "a", "content": "x", "mode": 420}},
        {"download": {"to": "a", "content": "x", "mode": "0888"}},
        {"set_property": {"command": "x"}},
        {"set_property": {"command": "x", "name": "p", "lines": True}},
        {"set_property": {"command": "x", "name": "a b"}},
        {"stat": "a", "env": {"A": "b"}},
        {"stat": "a", "workdir": "b"},
        {"stat": "a", "use_pty": True},
        {"command": "x", "logfiles": {"stdout": {"filename": "f"}}},
        {"command": "x", "logfiles": {"l": {"filename": "../f"}}},
        {"command": "x", "logfiles": {"l": "f"}},
        {"command": "x", "initial_stdin": "\ud800"},
    ],
    ids=str,
)
def test_kinds_are_strict(step: dict[str, Any]) -> None:
    assert refused(step)


# --- what is asked --------------------------------------------------------------------------------


def test_a_command_is_buildbots_shell() -> None:
    step = {"command": ["a", "b"], "workdir": "sub", "env": {"B": None}, "max_lines": 7}
    (call,), result = play(step, {}, env={"A": "1", "B": "2"})
    assert (call.command, call.transfer, result) == ("shell", None, None)
    assert call.args == {
        "command": ["a", "b"],
        "workdir": f"{WORKSPACE}/sub",
        "env": {"A": "1", "B": None},
        "timeout": 1200,
        "maxTime": None,
        "max_lines": 7,
        "sigtermTime": 10,
        "logEnviron": False,
        "want_stdout": True,
        "want_stderr": True,
    }
    options = {"use_pty": True, "initial_stdin": "x", "log_environment": True}
    logs = {"l": {"filename": "/f", "follow": True}}
    (call,), _ = play({"command": "x", **options, "logfiles": logs}, {})
    assert call.args["usePTY"] is call.args["logEnviron"] is True
    assert (call.args["initial_stdin"], call.args["logfiles"]) == ("x", logs)


@pytest.mark.parametrize(
    ("step", "command", "args"),
    [
        ({"mkdir": ["a", "/b"]}, "mkdir", {"paths": [f"{WORKSPACE}/a", "/b"]}),
        ({"rmdir": ["C:\\b"]}, "rmdir", {"paths": ["C:\\b"]}),
        (
            {"copy": {"from": "a", "to": "b"}},
            "cpdir",
            {"from_path": f"{WORKSPACE}/a", "to_path": f"{WORKSPACE}/b"},
        ),
        ({"remove": "a"}, "rmfile", {"path": f"{WORKSPACE}/a"}),
        ({"stat": "a"}, "stat", {"path": f"{WORKSPACE}/a"}),
        ({"listdir": "a"}, "listdir", {"path": f"{WORKSPACE}/a"}),
        ({"glob": "a*"}, "glob", {"path": "/base [[]x]/builds/B.1/a*"}),
        ({"glob": "/a*"}, "glob", {"path": "/a*"}),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_commands_on_files(step: dict[str, Any], command: str, args: dict[str, Any]) -> None:
    timed = {**step, "timeout_s": 5, "max_time_s": 6}
    (call,), _ = play(timed, {"stat": REGULAR, "files": []})
    assert call.command == command
    assert call.args == {**args, "timeout": 5, "maxTime": 6, "logEnviron": False}


def test_results_are_what_the_agent_told_and_nothing_else() -> None:
    assert play({"stat": "a"}, {"stat": REGULAR})[1] == {"stat": REGULAR}
    assert play({"glob": "a"}, {"files": ["b", "a"]})[1] == {"files": ["a", "b"]}
    assert play({"mkdir": ["a"]}, {"files": ["b"]})[1] is None
    for wrong in (None, "ab", [1], [None] * 10, {"a": 1}):
        with pytest.raises(StepFailed):
            play({"stat": "a"}, {"stat": wrong})
    for wrong in (None, "ab", [1], {"a": 1}):
        with pytest.raises(StepFailed):
            play({"listdir": "a"}, {"files": wrong})


def test_transfers() -> None:
    stored = [{"path": "f", "size_bytes": 1, "sha256": "0"}]
    (call,), result = play({"upload": {"from": "d/f", "max_size_bytes": 9}}, {"stored": stored})
    assert (call.command, call.transfer) == ("upload_file", ReceiveFile("f", 9))
    assert call.args["maxsize"] == 10  # a stock worker takes exactly as many for too many
    assert result == {"artifacts": stored}
    step: dict[str, Any] = {"upload_directory": {"from": "a\\d", "compress": "gz"}}
    (call,), result = play(step, {"stored": stored * 3})
    assert call.transfer == ReceiveDirectory("d", "gz")
    assert result == {"files": 3, "size_bytes": 3}
    step = {"download": {"to": "a", "content": "x", "mode": "0751"}}
    (call,), result = play(step, {"stored": [{"size_bytes": 1, "sha256": "0"}]})
    assert (call.transfer, call.args["mode"]) == (SendFile("x", None), 0o751)
    assert result == {"size_bytes": 1, "sha256": "0"}


def test_I09_a_pattern_names_its_artifacts_from_the_first_wildcard_on() -> None:
    found = [f"{WORKSPACE}/out/x/2", f"{WORKSPACE}/out/x/1", f"{WORKSPACE}/out/x/sub"]
    calls, result = play(
        {"upload_glob": {"pattern": "out/*/[12s]*", "name": "n"}},
        {"files": found},
        {"stat": REGULAR},
        {"stored": [{"size_bytes": 2}]},
        {"stat": REGULAR},
        {"stored": [{"size_bytes": 3}]},
        {"stat": FOLDER},
        {"stored": [{"size_bytes": 4}] * 2},
    )
    told = [call.transfer for call in calls if call.transfer]
    assert [wanted.name for wanted in told] == ["n/x/1", "n/x/2", "n/x/sub"]  # type: ignore[union-attr]
    assert result == {"files": 4, "size_bytes": 13}
    with pytest.raises(StepFailed, match=r"0 files match out/\*"):
        play({"upload_glob": {"pattern": "out/*"}}, {"files": []})
    with pytest.raises(StepFailed, match="10001 files"):
        play({"upload_glob": {"pattern": "*"}}, {"files": ["x"] * 10_001})


def test_a_pattern_of_any_depth_takes_each_file_once() -> None:
    calls, result = play(
        {"upload_glob": {"pattern": "C:\\w\\**"}},
        {"files": ["C:\\w\\d", "C:\\w\\d\\f"]},
        {"stat": FOLDER},
        {"stat": REGULAR},
        {"stored": [{"size_bytes": 2}]},
    )
    assert calls[-1].transfer == ReceiveFile("d/f", step_spec.FILE_SIZE_BYTES)
    assert result == {"files": 1, "size_bytes": 2}


def test_I06_properties() -> None:
    def properties(output: bytes, **options: Any) -> Any:
        step = {"set_property": {"command": "x", **options}}
        (call,), result = play(step, {"stdout": output})
        assert (call.command, call.wants_output) == ("shell", True)
        return result["properties"]

    assert properties(b" a\r\nb \n\xff", name="p") == {"p": "a\nb \n\ufffd"}
    assert properties(b" a\n", name="p", strip=False) == {"p": " a\n"}
    for output, options in [
        (b"x" * 65537, {"name": "p"}),
        (b"\x1b]0;title\x07", {"name": "p"}),
        (b"no line of that form", {"lines": True}),
        (b"1A=b", {"lines": True}),
    ]:
        with pytest.raises(StepFailed):
            properties(output, **options)
    assert properties(b"A=1\nB= 2 \n", lines=True) == {"A": "1", "B": "2"}
