"""What is expected of a machine, compared by a real hub with a real agent's."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest
from e2e.api import Api, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from e2e.hub_process import HubProcess


async def worker_until(api: Api, worker: str, holds: Callable[[dict[str, Any]], Any]) -> Any:
    return await until(lambda: api.worker(worker), holds)


@pytest.fixture
def tool(tmp_path: Path) -> Path:
    """A tool that can be repaired, in a directory that the hub's agents have on their PATH."""
    path = tmp_path / "bin" / "frob"
    path.parent.mkdir()
    make(path, "1.2")
    return path


def make(path: Path, version: str) -> None:
    path.write_text(f"#!/bin/sh\necho frob version {version}\n")
    path.chmod(0o755)


async def test_a_machine_that_is_as_expected_builds(shared_hub: HubProcess, api: Api) -> None:
    python = "{}.{}.{}".format(*sys.version_info[:3])
    expects = {
        "clock_skew_s": 5,
        "disk_free_mb": 1,
        "long_paths": True,
        "tools": {"sh": "*", "python3": ">=3"},
        "facts": [f'python_version == "{python}"'],
    }
    await api.define("fit", expects=expects)
    build = await api.ended(await api.submit("true", worker="fit"))
    assert build["state"] == "success"
    view = await api.worker("fit")
    assert view["admission"]["state"] == "met"
    assert view["admission"]["tools"]["sh"]["path"].endswith("/sh")
    assert view["admission"]["clock_skew_s"] == pytest.approx(0, abs=1)


async def test_a_machine_that_differs_builds_nothing_until_it_is_mended(
    make_hub: Callable[..., HubProcess], tool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason is the same in the view, the events, the decisions and why the build waits."""
    monkeypatch.setenv("PATH", str(tool.parent), prepend=":")
    hub = make_hub()
    hub.start()
    differs = f"not as expected: frob: expected >=1.10 → found 1.2 ({tool})"
    async with Api(hub.url, hub.token) as api:
        await api.define("unfit", expects={"tools": {"frob": ">=1.10"}})
        build = await api.submit("true", worker="unfit")
        view = await worker_until(api, "unfit", lambda view: view["quarantine"])
        assert view["quarantine"]["reason"] == differs
        # After the quarantine it is tried again, and that is why it waits meanwhile.
        waiting = await until(
            lambda: api.get(f"/builds/{build}"), lambda view: differs in (view["why"] or "")
        )
        assert (waiting["state"], waiting["attempts"]) == ("queued", 0)
        events = (await api.get("/workers/unfit/events"))["items"]
        assert differs in [each["cause"] for each in events if each["event"] == "Examined"]
        decisions = (await api.get("/decisions?worker=unfit&kind=quarantine"))["items"]
        assert (decisions[0]["rule"], decisions[0]["text"]) == ("not_as_expected", differs)
        await hub.latent(api, "unfit")
        hub.kill()
        hub.start()
    async with Api(hub.url, hub.token) as api:
        view = await api.worker("unfit")
        assert view["quarantine"] is None or view["quarantine"]["reason"] == differs
        make(tool, "1.10")
        await api.mode("unfit", "active")
        assert (await api.ended(build))["state"] == "success"
        view = await api.worker("unfit")
        assert (view["admission"]["state"], view["failed_starts"]) == ("met", 0)
    assert hub.stop() == 0
    assert hub.leftovers() == []
