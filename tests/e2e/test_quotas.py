"""What a build may store, with a real agent: refused with the reason, counted across a crash."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from e2e.api import Api
from e2e.hub_process import HubProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAKE = "ln -s {outside} leak; ln -s small link; printf small > small; head -c 2000 /dev/zero > big"
GO_ON = {"halt_on_failure": False}


@pytest.fixture
def hub(tmp_path: Path, database_url: str) -> Iterator[HubProcess]:
    quotas = {"quota_artifacts_per_submitter": "1000", "quota_logs_per_submitter": "6000"}
    made = HubProcess(tmp_path / "hub", database_url, **quotas)
    made.start()
    yield made
    made.close()


async def used(api: Api) -> tuple[int, int]:
    storage = (await api.get("/status"))["storage"]
    (own,) = storage["submitters"]
    assert own["artifacts_bytes"] == storage["artifacts"]["used_bytes"]
    return own["artifacts_bytes"], own["logs_bytes"]


async def test_uploads_and_logs_within_their_quotas(hub: HubProcess, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("outside")
    steps: list[dict[str, Any]] = [
        {"name": "make", "command": ["sh", "-c", MAKE.format(outside=outside)]},
        {"name": "link", "upload": {"from": "link"}, **GO_ON},
        {"name": "leak", "upload": {"from": "leak"}, **GO_ON},
        {"name": "tree", "upload_directory": {"from": ".", "name": "tree"}, **GO_ON},
        {"name": "asked", "upload": {"from": "leak", "follow_links": True}, **GO_ON},
        {"name": "big", "upload": {"from": "big"}, **GO_ON},
        {"name": "log", "command": ["sh", "-c", "yes | head -c 20000; echo $? > rc"]},
        {"name": "rc", "set_property": {"command": ["cat", "rc"], "name": "rc"}},
    ]
    async with Api(hub.url, hub.token) as api:
        await api.define("w")
        build = await api.submit(*steps, worker="w")
        view = await api.ended(build)
        failed = {step["name"] for step in view["steps"] if step["state"] == "failure"}
        assert failed == {"leak", "tree", "big", "rc"}, view
        assert b"a link leads out of" in await api.log(build, 2)
        assert b"a link leads out of" in await api.log(build, 3)
        assert b"the artifacts of " in await api.log(build, 5)
        log = await api.log(build, 6)
        assert 1000 < log.count(b"y\n") * 2 < 6000
        assert b"\n[truncated: the logs of " in log
        assert b"because a quota has ended the log" in await api.log(build, 7)
        before = await used(api)
        assert before[0] == len("small") + len("outside")
    hub.kill()
    hub.start()
    async with Api(hub.url, hub.token) as api:
        after = await used(api)
        assert after[0] == before[0]
        assert after[1] >= before[1]  # with the lines that say that logs are cut
