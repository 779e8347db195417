"""The routes of files: what is stored for builds, and what builds have given."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from hub.web.harness import api_on
from peers import small_disk

from hostler_agent.wire import messages
from hostler_hub.builds.logs import StepKey
from hostler_hub.builds.quotas import Kind, Limits, Quotas
from hostler_hub.builds.step_kinds import ReceiveFile
from hostler_hub.specs.caller import Role
from hostler_hub.store import builds
from hostler_hub.web import body_limit
from hostler_hub.web.api.schemas import builds as schemas
from hostler_hub.web.api.schemas import system as system_schemas

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx2
    from conftest import AsRole
    from hub.web.harness import Api, Site

FILES = "/api/v1/files"
BUILD = "01K8Z9Q8Y3N6V4T2R0P9M7K5J9"
ARTIFACTS = f"/api/v1/builds/{BUILD}/artifacts"


async def put(api: Api, *names: str) -> None:
    """A build with artifacts of these names, each holding its own name."""
    row: dict[str, Any] = {"id": BUILD, "state": "running", "spec": {}, "priority": 0}
    row |= {"submitted_by": "x", "submitted_at": 0.0, "attempts": 1}
    await api.hub.store.write(builds.insert, row)
    for name in names:
        wanted = ReceiveFile(name, 1000)
        transfer = api.hub.exchange.open(wanted, api.hub.exchange.quotas.account("x"))
        await transfer.take(messages.UpdateUploadFileWrite("c", name.encode()))
        await transfer.take(messages.UpdateUploadFileClose("c"))
        await api.hub.exchange.keep(transfer, wanted, StepKey(BUILD, 1, 0))
        transfer.discard()


async def test_a_file_is_stored_by_its_hash(as_role: AsRole) -> None:
    submitter = await as_role(Role.SUBMITTER)
    for _ in range(2):
        answer = await submitter.post(FILES, content=b"\x00 any bytes \xff")
        assert answer.status_code == 201
        stored = schemas.StoredFileView.model_validate(answer.json())
        assert stored.sha256 == hashlib.sha256(b"\x00 any bytes \xff").hexdigest()
    assert (await submitter.post(FILES)).json()["size_bytes"] == 0


@pytest.mark.peer("small-disk")
async def test_D2_a_file_that_finds_no_room_is_refused_with_the_reason_and_not_kept(
    site: Site,
) -> None:
    directory = site.settings.state_dir / "files"
    with small_disk.mounted(directory, "64k"):
        async with api_on(site) as api:
            submitter = api.client(await api.token(Role.SUBMITTER))
            answer = await submitter.post(FILES, content=b"x" * 200_000)
            assert answer.status_code == 507
            assert answer.json()["detail"].startswith("The hub's disk is full")
            assert (await submitter.post(FILES, content=b"small")).status_code == 201
        kept = [path.read_bytes() for path in directory.rglob("*") if path.is_file()]
        assert kept == [b"small"]


async def test_a_body_over_the_limit_is_not_stored(
    api: Api, operator: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert body_limit.BODY_SIZES_BYTES[FILES] == 1024**3
    monkeypatch.setitem(body_limit.BODY_SIZES_BYTES, FILES, 100_000)

    async def pieces(size_bytes: int) -> AsyncIterator[bytes]:
        for _ in range(size_bytes // 1000):
            yield bytes(1000)

    assert (await operator.post(FILES, content=pieces(100_000))).status_code == 201
    for content in (pieces(101_000), bytes(100_001)):
        answer = await operator.post(FILES, content=content)
        assert answer.status_code == 413
        assert answer.json()["type"] == "about:blank#too-large"
    # What was refused is removed in one of these threads: each has done so when all meet.
    threads = api.hub.exchange.files.threads
    everyone = threading.Barrier(threads._max_workers + 1)
    for _ in range(threads._max_workers):
        threads.submit(everyone.wait)
    await asyncio.to_thread(everyone.wait)
    kept = [path for path in (api.hub.settings.state_dir / "files").rglob("*") if path.is_file()]
    assert [path.stat().st_size for path in kept] == [100_000]


async def test_artifacts_are_listed_page_by_page(api: Api, operator: httpx2.AsyncClient) -> None:
    await put(api, "c", "a", "b/\N{SNOWMAN}")
    first = (await operator.get(f"{ARTIFACTS}?limit=2")).json()
    assert schemas.ArtifactPage.model_validate(first).next == "b/\N{SNOWMAN}"
    second = (await operator.get(ARTIFACTS, params={"limit": 2, "after": first["next"]})).json()
    assert [item["path"] for item in first["items"] + second["items"]] == [
        "a",
        "b/\N{SNOWMAN}",
        "c",
    ]
    assert second["next"] is None
    for wrong in ("limit=0", "limit=501", "colour=red", "after=" + "x" * 1025):
        assert (await operator.get(f"{ARTIFACTS}?{wrong}")).status_code == 422


@pytest.mark.parametrize("name", ["a", "b/\N{SNOWMAN}", "100% #1?.html", 'q";x=.js', "C:\\CON"])
async def test_an_artifact_comes_as_an_attachment(api: Api, as_role: AsRole, name: str) -> None:
    """U8: no browser may take what a build made for a page."""
    await put(api, name)
    answer = await (await as_role(Role.VIEWER)).get(f"{ARTIFACTS}/{quote(name)}")
    assert (answer.status_code, answer.content) == (200, name.encode())
    headers = answer.headers
    assert headers["content-type"] == "application/octet-stream"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"].endswith("sandbox")
    last = quote(name.rpartition("/")[2], safe="")
    assert headers["content-disposition"] == f"attachment; filename*=UTF-8''{last}"
    assert headers["content-length"] == str(len(name.encode()))
    assert headers["hostler-sha256"] == hashlib.sha256(name.encode()).hexdigest()


async def test_a_name_that_a_terminal_obeys_is_escaped_and_found(
    api: Api, operator: httpx2.AsyncClient
) -> None:
    name = "d/\x1b[2J\x9b\n\N{RIGHT-TO-LEFT OVERRIDE}"
    await put(api, name)
    page = await operator.get(ARTIFACTS)
    assert page.content.isascii()
    assert b"\x1b" not in page.content
    assert [item["path"] for item in page.json()["items"]] == [name]
    answer = await operator.get(f"{ARTIFACTS}/{quote(name)}")
    assert answer.content == name.encode()
    shown = quote("\\x1b[2J\\x9b\\x0a\\u202e", safe="")
    assert answer.headers["content-disposition"] == f"attachment; filename*=UTF-8''{shown}"


async def test_V19_who_stores_too_much_is_told_and_holds_up_nobody(
    api: Api, as_role: AsRole
) -> None:
    ann, bob = await as_role(Role.SUBMITTER), await as_role(Role.ADMIN)
    hundred = {Kind.FILES: Limits(per_submitter=100)}
    object.__setattr__(api.hub.exchange, "quotas", Quotas(hundred))
    announced = await ann.post(FILES, content=bytes(101))
    assert announced.status_code == 413
    assert announced.json()["detail"].startswith("The files of a-submitter may have 100 bytes")
    assert (await ann.post(FILES, content=b"x" * 80)).status_code == 201

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"y" * 10

    for content in (pieces(), b"z" * 21):
        answer = await ann.post(FILES, content=content)
        assert answer.status_code == 507
        assert answer.json()["type"] == "about:blank#insufficient-storage"
    assert (await bob.post(FILES, content=b"y" * 100)).status_code == 201
    status = system_schemas.Status.model_validate((await bob.get("/api/v1/status")).json())
    assert status.storage.files.used_bytes == 180
    assert [each.files_bytes for each in status.storage.submitters] == [100, 80]


@pytest.mark.parametrize(
    "path",
    [
        "/missing",
        "/a/b",
        "/..%2f..%2fadmin.token",
        "/%2e%2e/%2e%2e/%2e%2e/admin.token",
        "/%2fetc/passwd",
        "/a%00",
        "/" + "x" * 1025,
    ],
)
async def test_nothing_but_artifacts_can_be_had(
    api: Api, operator: httpx2.AsyncClient, path: str
) -> None:
    await put(api, "a")
    answer = await operator.get(ARTIFACTS + path)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_build_that_is_not_there(operator: httpx2.AsyncClient) -> None:
    for path in (ARTIFACTS, f"{ARTIFACTS}/a", "/api/v1/builds/x/artifacts"):
        assert (await operator.get(path)).status_code == 404
