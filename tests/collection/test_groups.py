"""The modules group, group_info, breaker_info and decision_info, against a stand-in for the hub."""

from types import SimpleNamespace

import pytest
from collection.test_modules import show, shown, task

DOCKER = {"name": "docker", "min_idle": 2, "max_instances": 20}
CHANGED = {"name": "docker", "changed": True, "created": True, "before": None, "after": DOCKER}
SAME = {**CHANGED, "changed": False, "created": False, "before": DOCKER}


def bodies(hub, path):
    return [body for _, asked, body, _ in hub.requests if asked.endswith(path)]


def test_a_group_is_defined_as_it_was_given_and_no_more(hub, play):
    hub.replies["/groups/define"] = {"results": [CHANGED]}
    schedule = {"cron": "0 8 * * 1-5", "duration_s": 36000, "min_idle": 8}
    code, output = play(
        [
            task("group", **DOCKER, schedules=[schedule]),
            show("[result.changed, result.created, result.definition.min_idle]"),
        ]
    )
    assert code == 0, output
    assert shown(output) == [[True, ["docker"], 2]]
    wanted = {**DOCKER, "schedules": [schedule]}
    assert bodies(hub, "/groups/define") == [{"groups": [wanted], "dry_run": False}]


def test_check_mode_asks_the_hub_and_diff_shows_both_sides(hub, play):
    hub.replies["/groups/define"] = {"results": [{**CHANGED, "before": {**DOCKER, "min_idle": 1}}]}
    code, output = play([task("group", groups=[DOCKER])], "--check", "--diff")
    assert code == 0, output
    assert '-    "min_idle": 1' in output
    assert '+    "min_idle": 2' in output
    assert [body["dry_run"] for body in bodies(hub, "/groups/define")] == [True]


def test_what_is_so_already_is_no_change(hub, play):
    hub.replies["/groups/define"] = {"results": [SAME]}
    hub.replies["/groups/remove"] = {
        "results": [{"name": "x", "changed": False, "state": "absent"}]
    }
    code, output = play(
        [
            task("group", **DOCKER),
            show("result.changed"),
            task("group", names=["x"], state="absent"),
            show("result.changed"),
        ]
    )
    assert code == 0, output
    assert shown(output) == [False, False]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "g", "state": "absent", "min_idle": 1}, "min_idle: only for state=present"),
        ({"names": ["g"]}, "names: not for state=present"),
        ({"groups": [DOCKER], "min_idle": 1}, "mutually exclusive: groups|min_idle"),
        ({}, "one of the following is required: name, names, groups"),
    ],
)
def test_bad_input_is_said_plainly(hub, play, options, words):
    code, output = play([task("group", **options)])
    assert code != 0
    assert words in output


def run(module, client, **params):
    answers = []
    made = SimpleNamespace(params=params, exit_json=lambda **answer: answers.append(answer))
    module.work(made, client)
    return answers[0]


def test_groups_are_asked_for_by_name_and_unknown_ones_are_told():
    from ansible_collections.hostler.fleet.plugins.modules import group_info

    client = SimpleNamespace(get=lambda path: {"items": [{"name": "a"}, {"name": "b"}]})
    answer = run(group_info, client, names=["b", "c", "b"])
    assert answer == {"groups": [{"name": "b"}], "unknown": ["c"]}


def test_breakers_that_are_not_closed_are_told():
    from ansible_collections.hostler.fleet.plugins.modules import breaker_info

    asked = []
    client = SimpleNamespace(get=lambda path: asked.append(path) or {"items": [{"domain": "d"}]})
    assert run(breaker_info, client) == {"breakers": [{"domain": "d"}]}
    assert asked == ["/breakers"]


def test_decisions_are_asked_for_page_by_page():
    from ansible_collections.hostler.fleet.plugins.modules import decision_info

    asked = []

    def get(path, query):
        asked.append((path, query))
        return {"items": [{"id": 9}] * query["limit"], "next": 9}

    params = {"worker": "w", "build": None, "group": None, "kind": "stop", "since": None}
    answer = run(decision_info, SimpleNamespace(get=get), **params, limit=501)
    assert len(answer["decisions"]) == 501
    where = {"worker": "w", "kind": "stop"}
    assert asked == [
        ("/decisions", {**where, "limit": 500}),
        ("/decisions", {**where, "limit": 1, "after": 9}),
    ]
