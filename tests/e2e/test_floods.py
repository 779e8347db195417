"""E11, E12: output without measure costs neither the build, nor the agent, nor the hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from e2e.api import Api
    from e2e.hub_process import HubProcess

GIGABYTE = 2**30
MIB = 2**20
LOG_LIMIT = 64 * MIB


def peak_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


@pytest.mark.timeout(400)
async def test_E12_a_line_of_a_gigabyte_is_survived_by_all(
    api: Api, shared_hub: HubProcess
) -> None:
    await api.define("flooded")
    before = await api.submit("echo before", worker="flooded")
    await api.ended(before)
    agent, hub = shared_hub.agent_of("flooded"), shared_hub.pid
    agent_before, hub_before = peak_mib(agent), peak_mib(hub)

    flood = f"head -c {GIGABYTE} /dev/zero | tr '\\0' x"
    build = await api.submit(flood, "echo after", worker="flooded")
    view = await api.ended(build, patience_s=300)

    assert view["state"] == "success", view["result_text"]
    assert view["steps"][0]["receipt"]["survivors"] == []
    log = await api.log(build)
    notice = f"\n[truncated at {LOG_LIMIT} bytes]\n".encode()
    assert log.endswith(b"x" * MIB + notice)
    assert len(log) == LOG_LIMIT + len(notice)
    assert await api.output(build, 1) == b"after\n"
    assert peak_mib(agent) - agent_before < 16
    assert peak_mib(hub) - hub_before < 48
