"""The modules as people run them: real ansible-playbook against a stand-in for the hub."""

import base64
import json
import re

TOKEN = "stand-in-token-6f1c2a"
LOCAL = {"name": "local-1", "driver": "local"}


def task(module, register="result", **options):
    return {f"hostler.fleet.{module}": options, "register": register, "name": module}


def show(expression):
    return {"ansible.builtin.debug": {"msg": "SHOWN {{ " + expression + " | to_json }} END"}}


def shown(output):
    """What show() tasks printed, decoded."""
    found = re.findall(r"SHOWN (.*?) END", output, re.DOTALL)
    return [json.loads(re.sub(r"\s*\n\s*", " ", one).replace('\\"', '"')) for one in found]


def define(hub, *names, **more):
    for name in names:
        hub.define({"workers": [{"name": name, "driver": "local", **more}], "dry_run": False})


def test_a_worker_is_defined_once(hub, play):
    again = task("worker", "again", **LOCAL)
    tasks = [
        task("worker", **LOCAL),
        again,
        show("[result.changed, result.created, again.changed]"),
    ]
    code, output = play(tasks)
    assert code == 0, output
    assert shown(output) == [[True, ["local-1"], False]]
    assert hub.workers["local-1"]["driver"] == "local"


def test_whole_seconds_stay_whole(hub, play):
    play([task("worker", **LOCAL, build_wait_timeout=60, missing_timeout=1.5)])
    assert hub.requests[0][2]["workers"] == [
        {**LOCAL, "build_wait_timeout": 60, "missing_timeout": 1.5}
    ]


def test_check_mode_changes_nothing_and_diff_shows_what_would(hub, play):
    code, output = play([task("worker", **LOCAL)], "--check", "--diff")
    assert code == 0, output
    assert "changed=1" in output
    assert re.search(r'^ *\+ *"driver": "local"', output, re.MULTILINE), output
    assert hub.workers == {}


def test_a_fleet_goes_in_one_request(hub, play):
    workers = [{"name": f"w-{n}", "driver": "fake"} for n in range(200)]
    code, output = play([task("worker", workers=workers), show("result.created | length")])
    assert code == 0, output
    assert shown(output) == [200]
    assert len(hub.requests) == 1


BAD_INPUT = [
    ({**LOCAL, "max_build": 2}, r"Unsupported parameters.*: max_build\."),
    ({**LOCAL, "max_builds": "many"}, r"max_builds.* int"),
    ({"workers": [{"name": "a", "driver": "b", "lables": []}]}, r"Unsupported.*workers\.lables"),
    ({"workers": [{"driver": "b"}]}, r"missing required arguments: name found in workers"),
    ({"name": "local-1"}, r"worker local-1: driver is required for state=present"),
    ({}, r"one of the following is required: name, names, workers"),
    ({"name": "a", "workers": []}, r"mutually exclusive: name\|names\|workers"),
    ({"names": ["a"], "driver": "local"}, r"names: not for state=present"),
    ({**LOCAL, "state": "latent"}, r"driver: only for state=present"),
    ({"name": "a", "state": "running"}, r"value of state must be one of"),
    ({"name": "Bad", "driver": "local"}, r"/workers/0/name: 'Bad' is no worker name$"),
    ({"name": "a", "state": "substantiated"}, r"/names/0: there is no worker 'a'$"),
    ({**LOCAL, "hub_timeout": 0}, r"hub_timeout: 0 is no time"),
    ({**LOCAL, "hub_token_file": "/nowhere", "hub_token": ""}, r"hub_token_file: /nowhere cannot"),
]


def test_bad_input_gets_one_clear_message(hub, play):
    """All of it in one play, since a play costs two seconds."""
    registers = [f"result_{index}" for index in range(len(BAD_INPUT))]
    tasks = [
        {**task("worker", register, **options), "ignore_errors": True}
        for register, (options, _words) in zip(registers, BAD_INPUT, strict=True)
    ]
    messages = "[" + ", ".join(f"{one}.msg | to_json | b64encode" for one in registers) + "]"
    code, output = play([*tasks, show(messages)])
    assert code == 0, output
    for message, (_options, words) in zip(shown(output)[0], BAD_INPUT, strict=True):
        assert re.search(words, json.loads(base64.b64decode(message)))
    assert hub.workers == {}


def test_a_hub_that_is_down_is_named(play):
    access = {"hub_url": "http://127.0.0.1:1", "hub_token": TOKEN}
    code, output = play([task("worker", **LOCAL)], defaults=access)
    assert code == 2
    assert "the hub at http://127.0.0.1:1 cannot be reached" in output


def test_a_refused_token_says_where_a_good_one_is(hub, play):
    access = {"hub_url": hub.url, "hub_token": "wrong-wrong-wrong"}
    code, output = play([task("worker_info")], defaults=access)
    assert code == 2
    assert "unknown token; give a valid token" in output


def test_the_environment_says_where_the_hub_is(hub, play, tmp_path):
    file = tmp_path / "token"
    file.write_text(TOKEN)
    for variables in ({"HOSTLER_TOKEN": TOKEN}, {"HOSTLER_TOKEN_FILE": str(file)}):
        code, output = play(
            [task("worker_info")], defaults={}, env={"HOSTLER_URL": hub.url, **variables}
        )
        assert code == 0, output


def test_workers_are_started_and_waited_for(hub, play):
    define(hub, "a", "b")
    hub.settle_after = 2
    code, output = play(
        [task("worker", names=["a", "b"], state="substantiated"), show("result.changed_workers")]
    )
    assert code == 0, output
    assert shown(output) == [["a", "b"]]
    assert {one["state"] for one in hub.workers.values()} == {"substantiated"}


def test_a_worker_that_does_not_start_is_listed(hub, play):
    define(hub, "a")
    hub.settle_after = 10**6
    hub.workers["a"]["last_error"] = "no such image"
    code, output = play([task("worker", name="a", state="substantiated", deadline_s=0.2)])
    assert code == 2
    assert "after 0.2 s 1 worker is left undone: a (latent: no such image)" in output


def test_starting_a_paused_worker_is_refused(hub, play):
    define(hub, "a")
    hub.workers["a"]["mode"] = "paused"
    code, output = play([task("worker", name="a", state="substantiated")])
    assert code == 2
    assert "a is paused; resume it first" in output


def test_a_worker_with_a_build_is_removed_only_by_force(hub, play):
    define(hub, "a")
    hub.workers["a"]["builds"] = ["1"]
    code, output = play([task("worker", name="a", state="absent")])
    assert code == 2
    assert "a runs a build; wait, or force" in output
    again = task("worker", "again", name="a", state="absent")
    code, output = play([task("worker", name="a", state="absent", force=True), again])
    assert code == 0, output
    assert "changed=1" in output


def test_modes_are_set_once_with_a_reason(hub, play):
    define(hub, "a", "b")
    order = {"names": ["a", "b", "a"], "mode": "paused", "reason": "lunch"}
    again = task("worker_state", "again", **order)
    code, output = play([task("worker_state", **order), again, show("result.changed_workers")])
    assert code == 0, output
    assert "changed=1" in output
    assert shown(output) == [["a", "b"]]
    assert hub.workers["a"]["mode_reason"] == "lunch"


def orders(hub, path):
    """The bodies of the requests to that path."""
    return [body for _, where, body, _ in hub.requests if where.endswith(path)]


def test_a_selection_is_one_request_and_what_it_chose_is_waited_for(hub, play):
    define(hub, "a", "b")
    hub.define({"workers": [{"name": "c", "driver": "docker"}], "dry_run": False})
    select = {"driver": ["local"], "mode": ["active"], "quarantined": False}
    order = {"select": select, "mode": "stopped", "reason": "fire"}
    code, output = play([task("worker_state", **order), show("result.changed_workers")])
    assert code == 0, output
    assert shown(output) == [["a", "b"]]
    (body,) = orders(hub, "/workers/mode")
    assert body["select"] == {**select, "all": False}
    assert "names" not in body
    assert hub.workers["c"]["mode"] == "active"


def test_until_is_a_time_from_now_or_what_the_hub_takes(hub, play):
    define(hub, "a")
    ends = ["90m", "1.5 h", "2d", "2026-11-21T18:00:00+01:00", "tomorrow"]
    tasks = [task("worker_state", name="a", mode="paused", until=each) for each in ends]
    code, output = play(tasks)
    assert code == 0, output
    sent = [(body.get("for_s"), body.get("until")) for body in orders(hub, "/workers/mode")]
    assert sent == [
        (5400, None),
        (5400, None),
        (172800, None),
        (None, "2026-11-21T18:00:00+01:00"),
        (None, "tomorrow"),
    ]


def test_workers_are_named_or_selected_and_not_both(hub, play):
    for target in ({}, {"name": "a", "select": {"all": True}}):
        code, output = play([task("worker_state", mode="paused", **target)])
        assert code == 2, output
    code, output = play([task("worker", select={"all": True})])
    assert code == 2
    assert "select: not for state=present" in output
    assert hub.requests == []


def test_a_selection_is_asked_about_and_brought_to_rest(hub, play):
    define(hub, "a")
    hub.define({"workers": [{"name": "c", "driver": "docker"}], "dry_run": False})
    select = {"driver": ["docker"]}
    tasks = [
        task("worker_info", select=select),
        show("result.workers | map(attribute='name')"),
        task("worker", "rest", select=select, state="absent"),
        show("rest.changed_workers"),
    ]
    code, output = play(tasks)
    assert code == 0, output
    assert shown(output) == [["c"], ["c"]]
    assert set(hub.workers) == {"a"}


def test_who_was_refused_is_told_when_asked(hub, play):
    hub.refusals = [{"name": "x", "client": "192.0.2.7", "count": 3}]
    ask = task("worker_info", names=[], refusals=True)
    code, output = play([ask, show("[result.workers, result.refusals]")])
    assert code == 0, output
    assert shown(output) == [[[], hub.refusals]]


def test_a_password_is_given_or_referred_to(hub, play):
    owned = {"name": "p", "driver": "permanent"}
    code, output = play([task("worker", **owned, password_ref={"file": "p"})])
    assert code == 0, output
    assert hub.requests[0][2]["workers"] == [{**owned, "password": {"file": "p"}}]
    code, output = play([task("worker", **owned, password="x", password_ref={"file": "p"})])
    assert code == 2
    assert "give password or password_ref" in output


def test_modes_in_check_mode_show_the_difference_only(hub, play):
    define(hub, "a")
    code, output = play([task("worker_state", name="a", mode="paused")], "--check", "--diff")
    assert code == 0, output
    assert "-mode: active" in output
    assert "+mode: paused" in output
    assert hub.workers["a"]["mode"] == "active"


def test_a_drain_that_is_late_lists_what_is_left(hub, play):
    define(hub, "a", "b")
    hub.settle_after = 10**6
    hub.workers["a"].update(state="substantiated", builds=["1"])
    code, output = play([task("worker_state", names=["a", "b"], mode="draining", deadline_s=0.2)])
    assert code == 2
    assert "1 worker is left undone: a (substantiated, 1 build running)" in output


def test_info_reads_every_page_and_filters_names(hub, play):
    define(hub, *(f"w-{n:04d}" for n in range(501)))
    hub.workers["w-0001"]["missing"] = {"since": "now", "reason": "lost"}
    tasks = [
        task("worker_info", "everybody"),
        task("worker_info", "trimmed", name="w-0003", fields=["mode"]),
        task("worker_info", "some", names=["w-0001", "w-0002", "nobody"], missing=True),
        show("[everybody.workers | length, trimmed.workers]"),
        show("[some.workers | map(attribute='name'), some.unknown]"),
    ]
    code, output = play(tasks)
    assert code == 0, output
    assert shown(output) == [
        [501, [{"name": "w-0003", "mode": "active"}]],
        [["w-0001"], ["nobody"]],
    ]


STEPS = [
    {"name": "hello", "command": ["echo", "hello"], "timeout_s": 0, "env": {"N": 1, "M": None}}
]


def test_a_build_is_submitted_waited_for_and_its_log_fetched(hub, play, tmp_path):
    dest = tmp_path / "whole.log"
    build = task("build", steps=STEPS, log_tail_lines=2, log_dest=str(dest), retry={"on_loss": 0})
    code, output = play([build, show("[result.build.state, result.log_tail]")])
    assert code == 0, output
    assert shown(output) == [["success", ["line 98", "line 99"]]]
    assert dest.read_text().splitlines()[0] == "line 0"
    (spec,) = [one["spec"] for one in hub.builds.values()]
    step = {"name": "hello", "command": ["echo", "hello"], "timeout_s": None}
    assert spec == {"steps": [{**step, "env": {"N": "1", "M": None}}], "retry": {"on_loss": 0}}


def test_the_same_key_is_the_same_build(hub, play):
    build = {"steps": STEPS, "idempotency_key": "k"}
    code, output = play([task("build", **build), task("build", "again", **build)])
    assert code == 0, output
    assert "changed=1" in output
    assert len(hub.builds) == 1


def test_the_same_key_for_another_build_is_refused(hub, play):
    other = [{"name": "other", "command": "true"}]
    tasks = [task("build", steps=steps, idempotency_key="k") for steps in (STEPS, other)]
    code, output = play(tasks)
    assert code == 2
    assert "the key belongs to another build" in output


def test_a_failed_build_fails_the_task_with_its_log(hub, play):
    hub.next_result = "failure"
    code, output = play([task("build", steps=STEPS, log_tail_lines=1)])
    assert code == 2
    assert "ended in failure: it was a failure" in output
    assert "line 99" in output


def test_a_late_build_says_why_it_waits_and_is_cancelled(hub, play):
    hub.next_result = "queued"
    code, output = play([task("build", steps=STEPS, deadline_s=0.2, cancel_late=True)])
    assert code == 2
    assert re.search(r"is queued after 0.2 s \(local-1 is paused\); now cancelled", output), output


def test_check_mode_submits_nothing(hub, play):
    code, output = play([task("build", steps=STEPS)], "--check")
    assert code == 0, output
    assert "changed=1" in output
    assert hub.requests == []


def test_what_no_worker_has_is_refused(hub, play):
    code, output = play([task("build", steps=STEPS, requires={"worker": "nobody"})])
    assert code == 2
    assert "/requires: no worker is called 'nobody'" in output


def test_a_build_is_cancelled_once_and_told(hub, play):
    cancel = {"state": "cancelled", "id": "{{ submitted.build.id }}"}
    tasks = [
        task("build", "submitted", steps=STEPS, wait=False),
        task("build", **cancel),
        task("build", "again", **cancel),
        task("build_info", "info", id="{{ submitted.build.id }}", log_tail_lines=1),
        task("build_info", "latest", limit=3),
        show("[result.changed, again.changed, info.builds[0].state, info.log_tail]"),
    ]
    code, output = play(tasks)
    assert code == 0, output
    assert shown(output) == [[True, False, "cancelled", ["line 99"]]]


def test_a_build_that_is_not_there_is_told(play):
    code, output = play([task("build_info", id="01NOBODY")])
    assert code == 2
    assert "there is no build '01NOBODY'" in output


CANARY = "canary-7e9b31d05f6a"


def test_a_token_is_given_to_a_file_and_to_nothing_else(hub, play, tmp_path):
    dest = tmp_path / "ci.token"
    hub.new_token = CANARY
    ci = {"name": "ci", "role": "submitter", "dest": str(dest)}
    tasks = [task("token", **ci), task("token", "again", **ci)]
    code, output = play(tasks, "-vvvv")
    assert code == 0, output
    assert "changed=1" in output
    assert CANARY not in output
    assert dest.read_text() == CANARY + "\n"
    assert dest.stat().st_mode & 0o777 == 0o600

    code, output = play([task("token", **{**ci, "role": "admin"})])
    assert code == 2
    assert "token ci has role submitter, not admin; revoke it first" in output

    dest.unlink()
    code, output = play([task("token", **ci)])
    assert code == 2
    assert "the hub keeps only its hash" in output

    code, output = play([task("token", name="ci", state="absent")])
    assert code == 0, output
    assert hub.tokens == {}


def test_secrets_are_in_no_output_however_verbose(hub, play, tmp_path):
    """V14: token and password, at -vvvv --diff, in success and in failure."""
    file = tmp_path / "token"
    password = {**LOCAL, "password": CANARY}
    tasks = [
        task("worker", **password),
        task("worker", workers=[password]),
        task("worker", workers=[{**password, "max_builds": "many"}]),
        task("worker_info", hub_token=CANARY),
    ]
    tasks = [{**one, "ignore_errors": True} for one in tasks]
    for access in ({"hub_token": TOKEN}, {"hub_token_file": str(file)}):
        file.write_text(TOKEN)
        code, output = play(tasks, "-vvvv", "--diff", defaults={"hub_url": hub.url, **access})
        assert code == 0
        assert "unknown token" in output
        left = [
            path.read_text(errors="replace")
            for path in tmp_path.rglob("*")
            if path.name not in ("token", "play.json") and path.is_file()
        ]
        for secret in (CANARY, TOKEN):
            assert secret not in "".join([output, *left])
