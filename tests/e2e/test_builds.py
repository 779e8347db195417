"""Builds as their submitters see them, on real workers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from e2e.api import Api
    from e2e.gates import Gate
    from e2e.hub_process import HubProcess


async def test_steps_run_in_order_and_a_failed_one_ends_the_build(api: Api) -> None:
    await api.define("steps")
    build = await api.submit(
        ["sh", "-c", 'echo out; echo err >&2; pwd > made; printf %s "$NAME"'],
        ["sh", "-c", "cat made >/dev/null && exit 3"],
        "never",
        {"name": "always", "command": 'echo "$PWD"', "always_run": True},
        worker="steps",
        env={"NAME": "ü€\N{SNOWMAN}"},
    )
    view = await api.ended(build)
    assert view["state"] == "failure"
    assert [step["state"] for step in view["steps"]] == [
        "success", "failure", "skipped", "success",
    ]  # fmt: skip
    assert [step["rc"] for step in view["steps"]] == [0, 3, None, 0]
    output = await api.output(build)
    assert b"out\n" in output
    assert b"err\n" in output
    assert "ü€\N{SNOWMAN}".encode() in output
    assert build in (await api.output(build, 3)).decode()


async def test_A13_cancelling_a_running_build_kills_it_once(
    api: Api, make_gate: Callable[[], Gate]
) -> None:
    gate = make_gate()
    await api.define("cancel")
    build = await api.submit(gate.command, ["true"], worker="cancel")
    job = await gate.entered()
    await api.cancel(build)
    view = await api.ended(build)
    assert view["state"] == "cancelled"
    assert "enough" in view["result_text"]
    assert [step["state"] for step in view["steps"]] == ["cancelled", "skipped"]
    assert not job.lives()
    assert await api.cancel(build) == view
    # V10: the slot is free again, and clean.
    after = await api.ended(await api.submit("true", worker="cancel"))
    assert after["state"] == "success"


async def test_a_waiting_build_says_why_and_is_cancelled_at_once(api: Api) -> None:
    await api.define("paused")
    await api.mode("paused", "paused", "for the upgrade")
    build = await api.submit("true", worker="paused")
    view = await api.get(f"/builds/{build}")
    assert view["state"] == "queued"
    assert "paused: for the upgrade" in view["why"]
    mine = [each["reasons"] for each in view["why_workers"] if each["worker"] == "paused"]
    assert mine == [["it is paused: for the upgrade"]]
    assert (await api.cancel(build))["state"] == "cancelled"
    assert (await api.worker("paused"))["state"] == "latent"


async def test_V11_a_paused_worker_runs_its_builds_when_resumed(api: Api) -> None:
    await api.define("resumed")
    await api.mode("resumed", "paused")
    build = await api.submit("true", worker="resumed")
    assert (await api.get(f"/builds/{build}"))["state"] == "queued"
    await api.mode("resumed", "active")
    assert (await api.ended(build))["state"] == "success"


async def test_K1_one_key_is_one_build(api: Api) -> None:
    await api.define("once")
    spec = {"steps": [{"name": "s", "command": "true"}], "requires": {"worker": "once"}}
    key = {"Idempotency-Key": "k1"}
    answers = await asyncio.gather(
        *(api.client.post("/api/v1/builds", json=spec, headers=key) for _ in range(5))
    )
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 200, 201]
    assert len({answer.json()["id"] for answer in answers}) == 1
    other = {**spec, "priority": 1}
    assert (await api.client.post("/api/v1/builds", json=other, headers=key)).status_code == 409


async def test_a_build_that_no_worker_can_run_is_refused(api: Api) -> None:
    await api.define("windowless")
    spec = {
        "steps": [{"name": "s", "command": "true"}],
        "requires": {"worker": "windowless", "labels": ["windows"]},
    }
    refused = await api.client.post("/api/v1/builds", json=spec)
    problem = refused.json()
    assert (refused.status_code, problem["pointer"]) == (422, "/requires")
    assert "windows" in problem["detail"]


@pytest.mark.parametrize("mode", ["stopped", "draining"])
async def test_a_worker_that_is_to_go_is_gone(
    shared_hub: HubProcess, api: Api, make_gate: Callable[[], Gate], mode: str
) -> None:
    """Draining lets the build end; stopped gives it back to the queue (V9: an operator's order)."""
    gate, worker = make_gate(), f"goes-{mode}"
    await api.define(worker)
    build = await api.submit(gate.command, worker=worker)
    job = await gate.entered()
    since = len(shared_hub.log)
    await api.mode(worker, mode)
    if mode == "draining":
        gate.open()
        assert (await api.ended(build))["state"] == "success"
        await shared_hub.latent(api, worker)
    else:
        await shared_hub.latent(api, worker)
        await shared_hub.logged(since, event="lease lost", build=build)
        assert (await api.get(f"/builds/{build}"))["state"] == "queued"
    assert not job.lives()
    await api.cancel(build)


async def test_A14_a_build_that_loses_every_worker_is_given_up(
    shared_hub: HubProcess, api: Api, make_gate: Callable[[], Gate]
) -> None:
    gate = make_gate()
    await api.define("stopped-under-it")
    build = await api.submit(gate.command, worker="stopped-under-it", retry={"on_loss": 0})
    await gate.entered()
    await api.mode("stopped-under-it", "stopped")
    view = await api.ended(build)
    assert (view["state"], view["attempts"]) == ("exception", 1)
    await shared_hub.latent(api, "stopped-under-it")


async def test_a_worker_may_be_stopped_as_soon_as_its_build_has_its_result(api: Api) -> None:
    """The result is published a moment before the slot is given back; nobody has to know."""
    await api.define("brief")
    for _ in range(5):
        await api.ended(await api.submit(["true"], worker="brief"))
        answer = await api.post("/workers/insubstantiate", {"names": ["brief"]})
        assert answer["results"][0]["changed"]
