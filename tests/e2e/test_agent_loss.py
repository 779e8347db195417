"""An agent that dies takes its jobs with it, and costs its build no more than a retry."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from stopping import resume, stop

if TYPE_CHECKING:
    from collections.abc import Callable

    from e2e.api import Api
    from e2e.gates import Gate
    from e2e.hub_process import HubProcess


async def test_E9_a_killed_agent_is_noticed_swept_and_its_build_retried(
    shared_hub: HubProcess, api: Api, make_gate: Callable[[], Gate]
) -> None:
    gate = make_gate()
    await api.define("loss-1", labels=["loss"])
    build = await api.submit(gate.command, requires={"labels": ["loss"]})
    job = await gate.entered()
    await gate.send(b"first attempt\n")
    await api.log_reaches(build, 1)
    # Where the build goes now; the first worker is quarantined for its loss.
    await api.define("loss-2", labels=["loss"])
    first = await api.worker("loss-1")
    os.kill(shared_hub.agent_of("loss-1"), signal.SIGKILL)

    # Seen by a look at the instance, long before its lease would have run out (300 s).
    await shared_hub.latent(api, "loss-1")
    assert not job.lives()
    second = await gate.entered()
    assert second.lives()
    await gate.send(b"second attempt\n")
    gate.open()
    view = await api.ended(build)
    assert (view["state"], view["attempts"], view["worker"]) == ("success", 2, "loss-2")
    assert (await api.output(build)).endswith(b"second attempt\n")
    assert "gone" in await api.quarantined("loss-1")
    assert not [left for left in shared_hub.leftovers() if first["instance"] in left]


async def test_A14_a_build_that_kills_its_agents_ends_as_an_exception(
    shared_hub: HubProcess, api: Api, make_gate: Callable[[], Gate]
) -> None:
    gate = make_gate()
    await api.define("poison-1", labels=["poison"])
    build = await api.submit(gate.command, requires={"labels": ["poison"]}, retry={"on_loss": 0})
    await gate.entered()
    os.kill(shared_hub.agent_of("poison-1"), signal.SIGKILL)
    view = await api.ended(build)
    assert (view["state"], view["attempts"]) == ("exception", 1)
    assert "lost its worker" in view["result_text"]


async def test_E20_a_killed_spawner_costs_its_builds_a_retry(
    shared_hub: HubProcess, api: Api, make_gate: Callable[[], Gate]
) -> None:
    """As a build does it that may, with `kill -9 $PPID`, or the kernel for want of memory."""
    gates = [make_gate(), make_gate()]
    await api.define("shared", max_builds=2)
    builds = [await api.submit(gate.command, worker="shared") for gate in gates]
    jobs = [await gate.entered() for gate in gates]
    os.kill(jobs[0].parent, signal.SIGKILL)
    for gate, job in zip(gates, jobs, strict=True):
        assert (await gate.entered()).lives()
        assert not job.lives()
        gate.open()
    for build in builds:
        view = await api.ended(build)
        assert (view["state"], view["attempts"]) == ("success", 2)
        assert not [left for left in shared_hub.leftovers() if build in left]


async def test_A6_a_stopped_agent_keeps_its_build(
    shared_hub: HubProcess, api: Api, make_gate: Callable[[], Gate]
) -> None:
    """Silence is not loss: within its lease nothing is rerun."""
    gate = make_gate()
    await api.define("quiet")
    build = await api.submit(gate.command, worker="quiet")
    job = await gate.entered()
    agent = shared_hub.agent_of("quiet")
    stop(agent)
    await gate.send(b"meanwhile\n")
    gate.open()
    await job.ended()  # nobody has looked at what it wrote
    assert (await api.get(f"/builds/{build}"))["state"] == "running"
    resume(agent)
    view = await api.ended(build)
    assert (view["state"], view["attempts"]) == ("success", 1)
    assert await api.output(build) == b"meanwhile\n"
