"""Limits as a build's submitter asks for them, held by this machine's kernel."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import pytest

from hostler_agent.jobs.posix import mounts

if TYPE_CHECKING:
    from e2e.api import Api

needs_memory_limits = pytest.mark.skipif(
    not os.access(mounts.own_cgroups().get("memory", "/none"), os.W_OK),
    reason="needs the memory controller of cgroup version 1, and to be root",
)

HOG = [sys.executable, "-S", "-c", "x = bytearray(b'x' * 2**28); print(len(x))"]


def step(name: str, command: Any, **options: Any) -> dict[str, Any]:
    return {"name": name, "command": command, **options}


@needs_memory_limits
async def test_a_build_that_takes_too_much_memory_is_told_so_in_words(api: Api) -> None:
    await api.define("narrow")
    steps = [
        step("wide", HOG, limits={"memory_mb": 600}),
        step("hog", HOG),
        step("never", ["true"]),
    ]
    build = await api.submit(*steps, worker="narrow", limits={"memory_mb": 64, "processes": 20})
    view = await api.ended(build)
    assert view["state"] == "failure"
    killed = "killed by the kernel's OOM killer: limit 64 MiB, peak 6"
    assert view["result_text"].startswith(f"step hog: {killed}")
    wide, hog, never = view["steps"]
    assert (wide["state"], wide["receipt"]["oom_kills"]) == ("success", 0)
    assert wide["receipt"]["peak_memory_bytes"] > 2**28
    assert (hog["failure_reason"], hog["rc"], never["state"]) == ("oom_killed", -1, "skipped")
    receipt = hog["receipt"]
    assert (receipt["ended"], receipt["oom_kills"]) == ("oom_killed", 1)
    assert receipt["why"].startswith(killed)
    assert "(limits: memory 64 MiB, processes 20)" in (await api.log(build, 1)).decode()
    after = await api.ended(await api.submit("true", worker="narrow"))
    assert after["state"] == "success"


@needs_memory_limits
async def test_a_property_is_set_within_limits_too(api: Api) -> None:
    await api.define("property")
    made = {"name": "size", "command": HOG}
    build = await api.submit(
        {"name": "ask", "set_property": made, "limits": {"memory_mb": 64}}, worker="property"
    )
    assert "OOM killer" in (await api.ended(build))["result_text"]


async def test_a_limit_that_the_worker_cannot_enforce_fails_the_step_naming_the_controller(
    api: Api,
) -> None:
    await api.define("bare", driver_options={"containment": "subreaper"})
    build = await api.submit(
        step("ok", ["true"]), step("limited", ["true"], limits={"cpu_percent": 50}), worker="bare"
    )
    view = await api.ended(build)
    why = "cannot start the command: CPU time cannot be limited on this worker: controller cpu "
    assert view["result_text"].startswith(f"step limited: {why}")
    assert [each["state"] for each in view["steps"]] == ["success", "failure"]
    assert view["steps"][1]["failure_reason"] == "not_started"
    assert why in (await api.log(build, 1)).decode()


async def test_E15_what_could_not_start_is_told_in_the_builds_own_result(api: Api) -> None:
    await api.define("start")
    view = await api.ended(await api.submit(["/no/such/program"], worker="start"))
    assert view["result_text"] == (
        "step s0: cannot start the command: No such file or directory: /no/such/program"
    )
    assert view["steps"][0]["failure_reason"] == "not_started"
