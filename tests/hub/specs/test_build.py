"""The border (U4): one past each limit, and strictness of every scalar."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from hostler_hub.runtime.ids import WORKER_NAME
from hostler_hub.specs import build as build_spec
from hostler_hub.specs.build import BuildSpec
from hostler_hub.specs.worker import WorkerDefinition

WORKER: dict[str, Any] = {"name": "a", "driver": "local"}
STEP: dict[str, Any] = {"name": "s", "command": ["true"]}


def refused(model: Any, data: dict[str, Any]) -> list[tuple[Any, ...]]:
    """The places that were refused."""
    with pytest.raises(ValidationError) as caught:
        model.model_validate(data)
    return [error["loc"] for error in caught.value.errors()]


def build(**step: Any) -> dict[str, Any]:
    return {"steps": [{**STEP, **step}]}


def test_defaults_are_the_contracts() -> None:
    assert WorkerDefinition.model_validate(WORKER).public() == {
        "name": "a",
        "driver": "local",
        "driver_options": {},
        "properties": {},
        "default_properties": {},
        "labels": [],
        "group": None,
        "priority": 0,
        "weight": 1,
        "max_builds": 1,
        "max_uses": None,
        "max_uptime": None,
        "build_wait_timeout": 600,
        "missing_timeout": None,
        "notify_on_missing": [],
        "keepalive_interval": None,
        "check_instance_interval": 10,
        "expects": None,
        "run_as": "build_user",
        "build_groups": [],
        "no_new_privileges": False,
        "description": None,
        "password_ref": None,
    }
    assert BuildSpec.model_validate(build()).model_dump(mode="json") == {
        "name": None,
        "requires": {
            "worker": None,
            "driver": None,
            "labels": [],
            "properties": {},
            "facts": [],
            "isolation": [],
        },
        "env": {},
        "limits": None,
        "properties": {},
        "priority": 0,
        "steps": [
            {
                "name": "s",
                "command": ["true"],
                "workdir": None,
                "env": {},
                "timeout_s": 1200,
                "max_time_s": None,
                "max_lines": None,
                "sigterm_time_s": 10,
                "use_pty": False,
                "initial_stdin": None,
                "logfiles": {},
                "log_environment": False,
                "limits": None,
                "batch_files": False,
                "halt_on_failure": True,
                "always_run": False,
            }
        ],
        "timeout_s": None,
        "retry": {"on_loss": 2},
    }


@pytest.mark.parametrize(
    "worker",
    [
        WORKER,
        {**WORKER, "build_wait_timeout": -1, "properties": {"a": 1.5, "b": None, "c": True}},
        {**WORKER, "password": {"file": "build"}, "notify_on_missing": "ann@example.org"},
        {**WORKER, "max_uses": 3, "max_uptime": 0.5, "default_properties": {"a": 1}},
    ],
)
def test_what_was_stored_is_read_back_unchanged(worker: dict[str, Any]) -> None:
    stored = WorkerDefinition.model_validate(worker).public()
    again = WorkerDefinition.stored(json.loads(json.dumps(stored))).public()
    assert json.dumps(again) == json.dumps(stored)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("max_builds", "yes"),
        ("max_builds", "1"),
        ("max_builds", True),
        ("max_builds", 1.0),
        ("max_builds", 0),
        ("max_builds", 257),
        ("missing_timeout", True),
        ("missing_timeout", "120"),
        ("missing_timeout", 0),
        ("missing_timeout", float("inf")),
        ("check_instance_interval", float("nan")),
        ("build_wait_timeout", None),
        ("build_wait_timeout", build_spec.MONTH_S + 1),
        ("name", 5),
        ("name", ""),
        ("driver", "../x"),
        ("description", "a\x1b]0;b\x07"),
        ("description", "\ud800"),
        ("description", "x" * 1025),
        ("password", 5),
        ("password", ""),
        ("password", {}),
        ("password", {"env": "PATH"}),
        ("password", {"file": "../x"}),
        ("password", {"env": "HOSTLER_SECRET_A", "file": "a"}),
        ("default_properties", {"a": []}),
        ("notify_on_missing", 5),
        ("notify_on_missing", "nobody"),
        ("notify_on_missing", ["ann@example.org", "a@b\nBcc: c@d"]),
        ("notify_on_missing", ["a@example.org"] * 65),
        ("keepalive_interval", 0.5),
        ("max_uses", 0),
        ("max_uses", True),
        ("max_uptime", 0),
        ("weight", 0),
        ("weight", "1"),
        ("priority", 0.5),
        ("labels", "linux"),
        ("labels", ["two words"]),
        ("labels", ["x"] * 65),
        ("properties", []),
        ("driver_options", {"x": float("nan")}),
        ("driver_options", {"x": "\ud800"}),
        ("driver_options", {"x": "y" * build_spec.OPTIONS_SIZE_BYTES}),
        ("driver_options", None),
        ("colour", "red"),
    ],
)
def test_definitions_are_strict(key: str, value: object) -> None:
    assert {loc[0] for loc in refused(WorkerDefinition, {**WORKER, key: value})} == {key}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [], {}, "\x00", "x" * 65537])
def test_properties_are_scalars(value: object) -> None:
    locations = refused(WorkerDefinition, {**WORKER, "properties": {"p": value}})
    assert {loc[:2] for loc in locations} == {("properties", "p")}


@pytest.mark.parametrize("name", ["a", "a-b", "0", "a" * 63])
def test_worker_names(name: str) -> None:
    assert WorkerDefinition.model_validate({**WORKER, "name": name}).name == name
    assert WORKER_NAME.fullmatch(name)


@pytest.mark.parametrize("name", ["A", "a_b", "-a", "a-", "a" * 64, "a\n", "a.b", "ä", "a/../b"])
def test_names_that_are_none(name: str) -> None:
    assert refused(WorkerDefinition, {**WORKER, "name": name}) == [("name",)]
    assert not WORKER_NAME.fullmatch(name)


def test_a_password_is_in_no_text_of_the_definition() -> None:
    """V14."""
    definition = WorkerDefinition.model_validate({**WORKER, "password": "hunter2"})
    assert definition.password is not None
    assert isinstance(definition.password, SecretStr)
    assert definition.password.get_secret_value() == "hunter2"
    for text in (repr(definition), str(definition.public()), definition.model_dump_json()):
        assert "hunter2" not in text


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("command", []),
        ("command", ""),
        ("command", [""]),
        ("command", ["a", 1]),
        ("command", {"a": 1}),
        ("command", ["a\x00"]),
        ("command", "a\x00"),
        ("name", "two\nlines"),
        ("name", "x" * 201),
        ("timeout_s", 0),
        ("timeout_s", "20"),
        ("sigterm_time_s", -1),
        ("max_lines", 0),
        ("max_lines", 1.5),
        ("halt_on_failure", "yes"),
        ("always_run", 1),
        ("workdir", "../up"),
        ("workdir", "a/../../up"),
        ("workdir", "a\\..\\up"),
        ("workdir", ""),
        ("workdir", "x" * 1025),
        ("env", {"": "x"}),
        ("env", {"A=B": "x"}),
        ("env", {"A\x00": "x"}),
        ("env", {"A": "x\x00"}),
        ("env", {"A": 1}),
        ("environment", {}),
    ],
)
def test_steps_are_strict(key: str, value: object) -> None:
    assert refused(BuildSpec, build(**{key: value}))[0][:3] == ("steps", 0, key)


@pytest.mark.parametrize(
    "workdir", ["src", "src/..name", "/abs/../olute", "C:\\x\\..\\y", "\\\\h\\s"]
)
def test_workdirs(workdir: str) -> None:
    assert BuildSpec.model_validate(build(workdir=workdir)).steps[0].workdir == workdir


class TestExecLimits:
    """E13: 128 KiB a string, 1 MiB in all, 4096 entries; a shell's string is one argument."""

    def test_one_string(self) -> None:
        fits = "x" * (build_spec.STRING_SIZE_BYTES - 1)
        for command in ([fits], fits):
            BuildSpec.model_validate(build(command=command))
        for command in ([fits + "x"], fits + "x", ["ä" * (build_spec.STRING_SIZE_BYTES // 2)]):
            assert refused(BuildSpec, build(command=command))

    def test_one_variable_counts_its_name(self) -> None:
        fits = "x" * (build_spec.STRING_SIZE_BYTES - 3)
        BuildSpec.model_validate(build(env={"A": fits}))
        assert refused(BuildSpec, build(env={"A": fits + "x"}))

    def test_all_together(self) -> None:
        words = ["x" * (2**16 - 1)] * 15
        rest = build_spec.TOTAL_SIZE_BYTES - 15 * 2**16
        assert BuildSpec.model_validate(build(command=[*words, "x" * (rest - 1)]))
        assert refused(BuildSpec, build(command=[*words, "x" * rest])) == [()]
        # The build's own variables come to each step's.
        data = {**build(command=[*words, "x" * (rest - 5)]), "env": {"A": "b"}}
        BuildSpec.model_validate(data)
        data["env"]["A"] = "bc"
        assert refused(BuildSpec, data) == [()]

    def test_entries(self) -> None:
        BuildSpec.model_validate(build(command=["x"] * build_spec.ENTRIES))
        assert refused(BuildSpec, build(command=["x"] * (build_spec.ENTRIES + 1)))
        env = {f"V{n}": "" for n in range(build_spec.ENTRIES)}
        BuildSpec.model_validate({**build(), "env": env})
        assert refused(BuildSpec, {**build(), "env": {**env, "W": ""}})
        assert refused(BuildSpec, {**build(env={"W": ""}), "env": env}) == [()]

    def test_a_variable_replaced_by_the_step_counts_once(self) -> None:
        env = {f"V{n}": "" for n in range(build_spec.ENTRIES)}
        BuildSpec.model_validate({**build(env={"V0": None}), "env": env})


def test_builds_are_bounded() -> None:
    assert refused(BuildSpec, {"steps": []})
    BuildSpec.model_validate({"steps": [STEP] * build_spec.STEPS})
    assert refused(BuildSpec, {"steps": [STEP] * (build_spec.STEPS + 1)})
    assert refused(BuildSpec, {**build(), "retry": {"on_loss": -1}}) == [("retry", "on_loss")]
    assert refused(BuildSpec, {**build(), "priority": 10**7}) == [("priority",)]
    assert refused(BuildSpec, {**build(), "requires": {"os": "linux"}}) == [("requires", "os")]


def test_a_condition_that_is_none_is_told_where_it_goes_wrong() -> None:
    spec = {**build(), "requires": {"facts": ["cores > 1", "cores >"]}}
    with pytest.raises(ValidationError, match="at character 8: here should be a value") as error:
        BuildSpec.model_validate(spec)
    assert [each["loc"] for each in error.value.errors()] == [("requires", "facts", 1)]


def test_an_agent_is_told_only_what_its_worker_s_owner_chose() -> None:
    """An older agent refuses to start with keys that it does not know."""
    assert WorkerDefinition.model_validate(WORKER).agent_config == {}
    chosen = {"build_groups": ["docker"], "no_new_privileges": True}
    assert WorkerDefinition.model_validate({**WORKER, **chosen}).agent_config == chosen
    assert WorkerDefinition.model_validate({**WORKER, "run_as": "agent"}).agent_config == {
        "run_as": "agent"
    }


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        ({"run_as": "root"}, ("run_as",)),
        ({"build_groups": ["a:b"]}, ("build_groups", 0)),
        ({"build_groups": ["g"] * 33}, ("build_groups",)),
        ({"no_new_privileges": "yes"}, ("no_new_privileges",)),
        ({"run_as": "agent", "build_groups": ["docker"]}, ()),
    ],
)
def test_what_no_agent_could_do_is_refused(wrong: dict[str, Any], where: tuple[Any, ...]) -> None:
    assert refused(WorkerDefinition, {**WORKER, **wrong}) == [where]


@pytest.mark.parametrize("field", ["run_as", "build_groups", "no_new_privileges"])
def test_V20_no_submitter_chooses_who_builds_run_as(field: str) -> None:
    value = WorkerDefinition.model_validate(WORKER).public()[field]
    assert refused(BuildSpec, {**build(), field: value}) == [(field,)]
    assert ("steps", 0, field) in refused(BuildSpec, build(**{field: value}))
    assert refused(BuildSpec, {**build(), "requires": {field: value}}) == [("requires", field)]
