"""Every kind of step on a stock Buildbot worker and on our own agent: the same, by content."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from e2e.api import Api, sha256
from e2e.gates import Gate
from e2e.hub_process import HubProcess
from needs import needs
from peers.buildbot_worker import StockWorker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

PASSWORD = "correct horse"
MIB = 1024 * 1024
SH = ["sh", "-ec"]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    """N3: whatever the tests did to their transfers, in the end nothing half done is left."""
    with HubProcess.running(tmp_path_factory.mktemp("hub") / "hub") as hub:
        yield hub
        for kept in ("artifacts", "files"):
            _await_empty(hub.state_dir / kept / "staging")


def _await_empty(directory: Path) -> None:
    """What was given up is removed by and by: a build does not wait for it."""
    end = time.monotonic() + 60
    while left := list(directory.iterdir()):
        assert time.monotonic() < end, left
        time.sleep(0.02)


@pytest.fixture(scope="module")
@needs("buildbot")
def stock_worker(
    hub: HubProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StockWorker]:
    worker = StockWorker(tmp_path_factory.mktemp("stock"), hub.port, "stock", PASSWORD)
    worker.start()
    yield worker
    worker.kill()


@pytest.fixture
async def api(hub: HubProcess) -> AsyncIterator[Api]:
    async with Api(hub.url, hub.token) as made:
        yield made


@pytest.fixture
def make_gate(tmp_path: Path) -> Iterator[Callable[[], Gate]]:
    made: list[Gate] = []

    def make() -> Gate:
        made.append(Gate(tmp_path, f"gate-{len(made)}"))
        return made[-1]

    yield make
    for gate in made:
        gate.close()


@dataclass
class Worker:
    """Runs builds on one worker."""

    api: Api
    hub: HubProcess
    name: str

    async def build(self, *steps: Any, **spec: Any) -> Any:
        named = [
            {"name": f"s{index}", **step} if isinstance(step, dict) else step
            for index, step in enumerate(steps)
        ]
        return await self.api.ended(await self.api.submit(*named, worker=self.name, **spec))

    async def run(self, *steps: Any, **spec: Any) -> Any:
        """The view of a build that succeeded."""
        view = await self.build(*steps, **spec)
        assert view["state"] == "success", (view["result_text"], view["steps"])
        return view

    async def fail(self, *steps: Any, **spec: Any) -> Any:
        """The view of a build whose last step failed, which gave the hub nothing."""
        view = await self.build(*steps, **spec)
        assert view["state"] == "failure", view
        assert view["steps"][-1]["state"] == "failure", view
        assert await self.artifacts(view) == {}
        assert not (self.hub.state_dir / "artifacts" / view["id"]).exists()
        return view

    async def artifacts(self, view: Any) -> dict[str, str]:
        """The sha256 by path, each held against the bytes the hub gives out."""
        page = await self.api.get(f"/builds/{view['id']}/artifacts")
        found = {}
        for item in page["items"]:
            data = await self.fetch(view, item["path"])
            assert (sha256(data), len(data)) == (item["sha256"], item["size_bytes"])
            found[item["path"]] = item["sha256"]
        return found

    async def fetch(self, view: Any, path: str) -> bytes:
        url = f"/api/v1/builds/{view['id']}/artifacts/{quote(path)}"
        answer = await self.api.client.get(url)
        assert answer.is_success, answer.text
        return answer.content

    async def store(self, data: bytes) -> str:
        answer = await self.api.client.post("/api/v1/files", content=data)
        assert answer.status_code == 201, answer.text
        assert answer.json() == {"sha256": sha256(data), "size_bytes": len(data)}
        return sha256(data)


@pytest.fixture(params=["ours", pytest.param("stock", marks=pytest.mark.peer("buildbot"))])
async def worker(request: pytest.FixtureRequest, api: Api, hub: HubProcess) -> Worker:
    if request.param == "ours":
        await api.define("ours")
    else:
        await api.define("stock", driver="permanent", password=PASSWORD)
        request.getfixturevalue("stock_worker")
    return Worker(api, hub, request.param)


# --- directories and files of the worker ----------------------------------------------------------


async def test_I01_directories_are_made_listed_copied_and_removed(worker: Worker) -> None:
    view = await worker.run(
        {"mkdir": ["one/two", "three"]},
        {"command": [*SH, "echo content > one/two/file; touch three/x; chmod 750 one/two/file"]},
        {"copy": {"from": "one", "to": "four/five"}},
        {"stat": "four/five/two/file"},
        {"listdir": "three"},
        {"glob": "four/**/f*"},
        {"glob": "nothing*"},
        {"remove": "three/x"},
        {"rmdir": ["one", "three"]},
        {"command": [*SH, "test ! -e one; test ! -e three; cat four/five/two/file"]},
        {"command": [*SH, 'test "$(stat -c %a four/five/two/file)" = 750']},
    )
    results = [step["result"] for step in view["steps"]]
    assert results[0] is results[2] is results[7] is results[8] is None
    stat = os.stat_result(results[3]["stat"])
    assert (stat.st_size, stat.st_mode & 0o777) == (8, 0o750)
    assert results[4] == {"files": ["x"]}
    assert [path.rpartition("four/")[2] for path in results[5]["files"]] == [
        "five",
        "five/two/file",
    ]
    assert results[6] == {"files": []}
    assert b"content\n" in await worker.api.log(view["id"], 9)


@pytest.mark.parametrize(
    ("step", "text"),
    [
        ({"stat": "missing"}, "No such file or directory"),
        ({"listdir": "missing"}, "No such file or directory"),
        ({"remove": "missing"}, None),
        ({"copy": {"from": "missing", "to": "to"}}, "No such file or directory"),
        ({"mkdir": ["/proc/no/such"]}, "No such file or directory"),
        ({"upload": {"from": "missing"}}, "for upload"),
        ({"upload": {"from": "missing", "keep_stamp": True}}, "for upload"),
        ({"upload_directory": {"from": "missing"}}, "for upload"),
        ({"upload_glob": {"pattern": "missing*"}}, "0 files match missing*"),
        ({"download": {"to": "/proc/no/such", "content": "x"}}, None),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
async def test_I10_I12_what_cannot_be_done_fails_with_a_text(
    worker: Worker, step: dict[str, Any], text: str | None
) -> None:
    if worker.name == "stock" and (text is None or "mkdir" in step):
        text = ""  # it has its own words, or none
    view = await worker.build(step)
    if view["state"] == "exception" and worker.name == "stock":
        assert text == ""  # its command failed with a traceback instead of an exit code
        return
    assert view["state"] == "failure", view
    assert view["steps"][0]["rc"] != 0
    assert (text or "") in view["result_text"], view["result_text"]
    assert await worker.artifacts(view) == {}


# --- uploads --------------------------------------------------------------------------------------


async def test_I08_a_file_becomes_an_artifact(worker: Worker) -> None:
    made = bytes(range(256)) * 9000
    view = await worker.run(
        {"download": {"to": "made", "file": await worker.store(made)}},
        {"command": [*SH, "mkdir -p deep; cp made deep/er; touch -d @1234567890 deep/er; : > no"]},
        {"upload": {"from": "made"}},
        {"upload": {"from": "deep/er", "name": "a/b/\N{SNOWMAN} %2e.bin", "keep_stamp": True}},
        {"upload": {"from": "no"}},
    )
    digest = sha256(made)
    found = await worker.artifacts(view)
    assert found == {"made": digest, "a/b/\N{SNOWMAN} %2e.bin": digest, "no": sha256(b"")}
    items = (await worker.api.get(f"/builds/{view['id']}/artifacts"))["items"]
    stamps = {item["path"]: item["modified_at"] for item in items}
    assert stamps["a/b/\N{SNOWMAN} %2e.bin"] == "2009-02-13T23:31:30.000Z"
    assert stamps["made"] is None
    stored = {"path": "made", "sha256": digest, "size_bytes": len(made)}
    assert view["steps"][2]["result"] == {"artifacts": [stored]}


async def test_a_file_may_be_as_large_as_allowed_and_no_larger(worker: Worker) -> None:
    make = {"command": [*SH, "head -c 100000 /dev/zero > f"]}
    await worker.run(make, {"upload": {"from": "f", "max_size_bytes": 100_000}})
    view = await worker.fail(make, {"upload": {"from": "f", "max_size_bytes": 99_999}})
    assert "larger than 99999 bytes" in view["result_text"]


@pytest.mark.parametrize("compress", [None, "gz", "bz2"])
async def test_I08_a_directory_becomes_artifacts(worker: Worker, compress: str | None) -> None:
    script = (
        "mkdir -p d/sub/empty; seq 100000 > d/numbers; : > d/nothing; head -c 700001 /dev/urandom "
        '> "d/sub/r\N{LATIN SMALL LETTER U WITH DIAERESIS}n dom"; long=$(printf %0120d 1); '
        "mkdir -p d/$long; echo x > d/$long/$long; cd d; find . -type f | xargs -d '\\n' sha256sum"
    )
    view = await worker.run(
        {"command": [*SH, script]},
        {"upload_directory": {"from": "d", "name": "out/d", "compress": compress}},
    )
    log = (await worker.api.log(view["id"])).decode()
    pairs = [line.split("  ./") for line in log.splitlines() if "  ./" in line]
    there = {f"out/d/{path}": digest for digest, path in pairs}
    assert len(there) == 4
    assert await worker.artifacts(view) == there
    assert view["steps"][1]["result"]["files"] == 4


async def test_links_out_of_the_workspace_are_refused(worker: Worker) -> None:
    """Our agent follows the others; a stock worker sends links, of which the hub takes none."""
    view = await worker.fail(
        {"command": [*SH, "mkdir d; echo x > d/a; ln -s /etc/passwd d/b"]},
        {"upload_directory": {"from": "d"}},
    )
    why = {"ours": "a link leads out of ", "stock": "'b' is a symbolic link"}[worker.name]
    assert why in view["result_text"]


async def test_I09_what_matches_becomes_artifacts(worker: Worker) -> None:
    make = [*SH, "mkdir -p out/x/y out/dir; for n in 1.txt x/2.txt x/y/3.txt 4.log dir/5; do "]
    make[-1] += "echo $n > out/$n; done"
    view = await worker.run(
        {"command": make},
        {"upload_glob": {"pattern": "out/**/*.txt", "name": "texts"}},
        {"upload_glob": {"pattern": "out/d*"}},
    )
    assert await worker.artifacts(view) == {
        "texts/1.txt": sha256(b"1.txt\n"),
        "texts/x/2.txt": sha256(b"x/2.txt\n"),
        "texts/x/y/3.txt": sha256(b"x/y/3.txt\n"),
        "dir/5": sha256(b"dir/5\n"),
    }


# --- downloads, properties ------------------------------------------------------------------------


async def test_I08_files_reach_the_worker_as_they_are(worker: Worker) -> None:
    """N4: also an empty one, and one of exactly a block's size."""
    sizes = [0, 1, 512 * 1024, 8 * MIB + 1]
    files = [os.urandom(size) for size in sizes]
    steps: list[Any] = []
    for index, data in enumerate(files):
        steps.append({"download": {"to": f"in/{index}", "file": await worker.store(data)}})
    text = "#!/bin/sh\necho gr\N{LATIN SMALL LETTER U WITH DIAERESIS}n\r\n\ttab"
    view = await worker.run(
        *steps,
        {"download": {"to": "in/tool", "content": text, "mode": "0751"}},
        {"command": [*SH, "cd in; sha256sum 0 1 2 3 tool; stat -c mode=%a tool"]},
    )
    log = (await worker.api.log(view["id"], len(steps) + 1)).decode()
    for data, name in zip([*files, text.encode()], ["0", "1", "2", "3", "tool"], strict=True):
        assert f"{sha256(data)}  {name}\n" in log
    assert "mode=751" in log
    assert view["steps"][3]["result"] == {"size_bytes": sizes[3], "sha256": sha256(files[3])}


async def test_100_MB_both_ways(worker: Worker) -> None:
    data = os.urandom(1_000_000) * 100
    view = await worker.run(
        {"download": {"to": "large", "file": await worker.store(data)}},
        {"upload": {"from": "large"}},
    )
    assert view["steps"][1]["result"]["artifacts"][0]["sha256"] == sha256(data)
    digest, size = hashlib.sha256(), 0
    url = f"/api/v1/builds/{view['id']}/artifacts/large"
    async with worker.api.client.stream("GET", url) as answer:
        assert answer.headers["content-disposition"].startswith("attachment")
        assert answer.headers["x-content-type-options"] == "nosniff"
        async for piece in answer.aiter_bytes():
            digest.update(piece)
            size += len(piece)
    assert (size, digest.hexdigest()) == (len(data), sha256(data))


async def test_I06_output_becomes_properties_of_the_build(worker: Worker) -> None:
    script = "echo noise >&2; printf ' A=1 \\n\\nB=x=\\303\\274\\n'"
    view = await worker.run(
        {"set_property": {"command": "echo; echo ' r1234 '", "name": "revision"}},
        {"set_property": {"command": [*SH, script], "lines": True}, "env": {"X": "y"}},
        properties={"branch": "main", "B": "before"},
    )
    assert view["properties"] == {"branch": "main", "revision": "r1234", "A": "1", "B": "x=ü"}
    kept = await worker.fail({"set_property": {"command": "echo x; exit 4", "name": "p"}})
    assert (kept["properties"], kept["steps"][0]["rc"]) == ({}, 4)


# --- commands -------------------------------------------------------------------------------------


async def test_a_terminal_and_initial_input(worker: Worker) -> None:
    view = await worker.run(
        {"command": [*SH, "test -t 1 && test -t 0"], "use_pty": True},
        {"command": [*SH, "test ! -t 1; sha256sum"], "initial_stdin": "gr\N{SNOWMAN}n\n" * 10_000},
        {"command": [*SH, "echo the environment is told"], "log_environment": True},
    )
    digest = sha256(("gr\N{SNOWMAN}n\n" * 10_000).encode())
    assert digest.encode() in await worker.api.log(view["id"], 1)
    assert b"PATH=" in await worker.api.log(view["id"], 2)


async def test_log_files_are_followed(worker: Worker, make_gate: Callable[[], Gate]) -> None:
    """Lines of a file arrive while the command runs; with follow only what is new."""
    gate = make_gate()
    script = f"cd w; echo first >> new; echo third >> old; exec >> old; {gate.command[-1]}"
    steps = [
        {"name": "make", "command": [*SH, "mkdir w; echo before > w/old; echo begun > w/new"]},
        {
            "name": "write",
            "command": [*SH, script],
            "logfiles": {
                "new.log": {"filename": "w/new"},
                "old.log": {"filename": "w/old", "follow": True},
            },
        },
    ]
    build = await worker.api.submit(*steps, worker=worker.name)
    await gate.entered()
    url = f"/api/v1/builds/{build}/steps/1/log?follow=true"
    seen, has_sent = b"", False
    async with worker.api.client.stream("GET", url) as answer:
        async for data in answer.aiter_bytes():
            seen += data
            if b"begun\nfirst\n" in seen and not has_sent:
                # A stock worker has looked at both now; of the second, what comes from here on.
                has_sent = True
                await gate.send(b"second\n")
            if b"second\n" in seen:
                gate.open()
    assert (await worker.api.ended(build))["state"] == "success"
    assert b"begun\nfirst\n" in seen
    _, _, told = seen.partition(b" using PTY: False\n")
    assert b"second\n" in told
    assert b"before" not in told


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"timeout_s": 0.5}, "timeout_without_output"),
        ({"max_time_s": 0.5}, "timeout"),
        ({"max_lines": 3}, "max_lines_failure"),
    ],
    ids=["silence", "time", "lines"],
)
async def test_limits_end_a_command(worker: Worker, options: Any, reason: str) -> None:
    script = "i=0; while [ $i -lt 10 ]; do i=$((i+1)); echo $i; done; exec sleep 100"
    view = await worker.fail({"command": [*SH, script], **options})
    assert view["steps"][0]["failure_reason"] == reason
    after = await worker.run({"command": ["true"]})
    assert after["attempts"] == 1


async def test_I05_an_interrupted_upload_leaves_nothing(worker: Worker) -> None:
    steps = [
        {"name": "make", "command": [*SH, "truncate -s 1000M large"]},
        {"name": "send", "upload": {"from": "large"}},
    ]
    build = await worker.api.submit(*steps, worker=worker.name)
    await worker.api.log_reaches(build, 1, step=1)
    await worker.api.cancel(build)
    view = await worker.api.ended(build)
    assert view["state"] == "cancelled"
    assert await worker.artifacts(view) == {}
    assert not (worker.hub.state_dir / "artifacts" / build).exists()


async def test_an_upload_that_takes_too_long_is_ended(worker: Worker) -> None:
    view = await worker.fail(
        {"command": [*SH, "truncate -s 1000M large"]},
        {"upload": {"from": "large"}, "max_time_s": 0.05},
    )
    assert view["steps"][1]["failure_reason"] == "timeout"
    assert "longer than 0.05 s" in view["result_text"]
