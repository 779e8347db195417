"""Large requests in pieces, and waiting by a clock that is advanced."""

import json

import pytest
from ansible_collections.hostler.fleet.plugins.module_utils import batch, build_log, errors, waiting


def definitions(count):
    return [{"name": f"w-{number}", "driver": "fake"} for number in range(count)]


LEASE = {"state": "held", "holder": "ann", "until": "16:20", "reason": "debugging"}


def test_pieces_hold_everything_in_order_and_stay_below_the_limit():
    items = definitions(1000)
    pieces = batch.cut(items, 4096)
    assert [one for piece in pieces for one in piece] == items
    assert len(pieces) > 5
    assert all(len(json.dumps(piece)) <= 4096 for piece in pieces)


def test_one_item_beyond_the_limit_is_left_to_the_hub_to_refuse():
    assert batch.cut(["x" * 100], 10) == [["x" * 100]]


def test_a_fleet_that_fits_is_one_request(hub, client):
    results = batch.post(client, "/workers/define", "workers", definitions(1000))
    assert len(results) == 1000
    assert len(hub.requests) == 1


def test_several_requests_are_tried_dry_first_so_that_all_or_none_is_done(hub, client):
    items = definitions(50)
    items[49]["name"] = "Bad"
    with pytest.raises(errors.InvalidRequest) as caught:
        batch.post(client, "/workers/define", "workers", items, limit_bytes=400)
    assert caught.value.pointer == "/workers/49/name"
    assert "/workers/49/name" in caught.value.message
    assert hub.workers == {}


def test_several_requests_give_one_result(hub, client):
    results = batch.post(client, "/workers/define", "workers", definitions(50), limit_bytes=400)
    assert [one["name"] for one in results] == [one["name"] for one in definitions(50)]
    assert all(one["changed"] for one in results)
    assert len(hub.workers) == 50


class Clock:
    """Time that passes by sleeping only."""

    def __init__(self):
        self.time = 0.0
        self.sleeps = []

    def now(self):
        return self.time

    def sleep(self, seconds):
        self.sleeps.append(seconds)
        self.time += seconds


def define(client, *names):
    batch.post(client, "/workers/define", "workers", [{"name": n, "driver": "fake"} for n in names])


def test_waiting_ends_when_all_are_there_and_polls_slower_and_slower(hub, client):
    define(client, "a", "b")
    hub.settle_after = 10
    client.post("/workers/substantiate", {"names": ["a", "b"], "dry_run": False})
    clock = Clock()
    assert waiting.wait_for(client, ["a", "b"], waiting.not_attached, 60, clock) == {}
    assert clock.sleeps == sorted(clock.sleeps)
    assert max(clock.sleeps) <= 1.0


def test_waiting_ends_at_the_deadline_and_asks_only_for_what_is_left(hub, client):
    define(client, "a", "b")
    hub.workers["b"].update(state="substantiated", attached=True)
    clock = Clock()
    left = waiting.wait_for(client, ["a", "b"], waiting.not_attached, 5, clock)
    assert left == {"a": "latent"}
    assert clock.time == 5
    assert hub.requests[-1][2] == {"names": ["a"]}


def test_nobody_waits_for_a_start_that_has_failed(hub, client):
    """An order starts a worker once; another one that still comes up is waited for."""
    define(client, "a", "b")
    failed = {"reason": "no image", "until": "2026-11-21T08:00:00.000Z"}
    hub.workers["a"].update(quarantine=failed, last_error="no image")
    hub.settle_after = 3
    client.post("/workers/substantiate", {"names": ["b"], "dry_run": False})
    clock = Clock()
    left = waiting.wait_for(client, ["a", "b"], waiting.not_attached, 60, clock)
    assert left == {"a": "latent: no image"}
    assert clock.time < 5
    assert waiting.undone_message(left, 60) == "1 worker is left undone: a (latent: no image)"
    assert [body["names"] for *_, body, _ in hub.requests[-2:]] == [["b"], ["b"]]


def test_a_deadline_of_zero_still_looks_once(hub, client):
    define(client, "a")
    assert waiting.wait_for(client, ["a"], waiting.not_resting, 0, Clock()) == {}


@pytest.mark.parametrize(
    ("judge", "view", "words"),
    [
        (waiting.not_resting, {"state": "latent", "builds": []}, None),
        (
            waiting.not_resting,
            {"state": "substantiated", "builds": ["1"]},
            "substantiated, 1 build running",
        ),
        (waiting.not_resting, {"state": "insubstantiating", "builds": []}, "insubstantiating"),
        (
            waiting.not_resting,
            {"state": "substantiated", "builds": [], "lease": LEASE},
            "substantiated, leased by ann until 16:20: debugging",
        ),
        (waiting.not_attached, {"state": "substantiated", "attached": True}, None),
        (waiting.not_attached, {"state": "substantiated", "attached": False}, "substantiated"),
        (
            waiting.not_attached,
            {"state": "latent", "attached": False, "last_error": "no image"},
            "latent: no image",
        ),
        (waiting.not_attached, None, "not defined"),
        (waiting.not_gone, None, None),
        (
            waiting.not_gone,
            {"state": "insubstantiating"},
            "being removed, instance is insubstantiating",
        ),
    ],
)
def test_what_is_left_undone_is_said_in_a_few_words(judge, view, words):
    assert judge(view) == words


def test_a_long_list_of_what_is_left_is_cut():
    message = waiting.undone_message({f"w-{n:02d}": "latent" for n in range(12)}, 60)
    assert message.startswith("after 60 s 12 workers are left undone: w-00 (latent), ")
    assert message.endswith("w-09 (latent), and 2 more")


def build(*steps):
    return {
        "id": "1",
        "steps": [
            {"index": i, "state": state, "log_size_bytes": size}
            for i, (state, size) in enumerate(steps)
        ],
    }


@pytest.mark.parametrize(
    ("steps", "index"),
    [
        ([("success", 10), ("success", 10)], 1),
        ([("success", 10), ("failure", 10), ("success", 10)], 1),
        ([("success", 10), ("skipped", 0)], 0),
        ([("success", 0)], None),
        ([], None),
    ],
)
def test_the_telling_step_is_the_failed_one_or_else_the_last_that_spoke(steps, index):
    step = build_log.telling_step(build(*steps))
    assert (step and step["index"]) == index
