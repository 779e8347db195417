"""Backups of a hub and restores from them, on both databases, also killed at any point."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import sqlite3
import tarfile
import traceback
from contextlib import closing
from typing import TYPE_CHECKING

import psycopg
import pytest

from hostler_hub.errors import SettingsError
from hostler_hub.runtime import process
from hostler_hub.runtime.errors import HubRuns
from hostler_hub.runtime.ids import new_ulid
from hostler_hub.runtime.settings import Settings
from hostler_hub.store import (
    archive,
    artifacts,
    backups,
    builds,
    databases,
    hold,
    identity,
    restores,
)
from hostler_hub.store.engine import Store
from hostler_hub.store.open import open_store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hostler_hub.store.rows import Row

DATA = b"made by a build\n" * 1000
HUB = "01J00000000000000000000000"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def settings(tmp_path: Path, database_url: str, sqlite_template: Path) -> Settings:
    """A hub's state directory, and the database of a hub that has run."""
    if database_url.startswith("sqlite"):
        database_url = ""
    made = Settings(state_dir=tmp_path / "hub", database_url=database_url)
    made.prepare_state_dir()
    if not database_url:
        shutil.copy(sqlite_template, made.state_dir / "hub.sqlite3")
    return made


@pytest.fixture
async def store(settings: Settings, build_row: Callable[..., Row]) -> Store:
    """The open store, as a running hub has it, with a build's artifact and a stored file."""
    async with open_store(settings) as store:
        await identity.claim(store, settings, HUB)
        build = new_ulid()
        await store.write(builds.insert, build_row(id=build))
        put(settings, f"artifacts/{build}/1/out/a.txt", DATA)
        put(settings, f"artifacts/{build}/1/out/b.txt", b"other")
        put(settings, f"files/{sha256(DATA)[:2]}/{sha256(DATA)}", DATA)
        put(settings, "tls/ca.pem", b"certificate")
        put(settings, "secrets/ec2", b"key")
        put(settings, "admin.token", b"token")
        for left_out in ("artifacts/staging/half", "instances/local/x", "hub.log", "agent/a"):
            put(settings, left_out, b"not kept")
        row = {"build": build, "attempt": 1, "step": 0, "size_bytes": len(DATA)}
        row |= {"sha256": sha256(DATA), "modified_at": 1.0, "stored_at": 2.0}
        await store.write(artifacts.put, [row | {"path": "out/a.txt"}])
        yield store


def put(settings: Settings, name: str, data: bytes) -> None:
    path = settings.state_dir / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def elsewhere(settings: Settings, tmp_path: Path, request: pytest.FixtureRequest) -> Settings:
    """Where to restore to: an empty directory and, for PostgreSQL, an empty database."""
    url = ""
    if settings.database_url.startswith("postgresql"):
        cluster = request.getfixturevalue("postgresql_cluster")
        name = cluster.create()
        request.addfinalizer(lambda: cluster.drop(name))
        url = cluster.url(name)
    return Settings(state_dir=tmp_path / "restored", database_url=url)


def files(directory: Path) -> set[str]:
    return {
        path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()
    }


@pytest.mark.usefixtures("store")
async def test_a_backup_is_restored_with_all_that_is_the_hub_s(
    settings: Settings, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    made = backups.back_up(settings, tmp_path / "backup.tar")
    assert (made.hub, made.missing) == (HUB, ())
    assert (tmp_path / "backup.tar").stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.glob(".*")) == []
    target = elsewhere(settings, tmp_path, request)
    assert restores.restore(target, tmp_path / "backup.tar") == made
    kept = files(settings.state_dir) - {"hub.sqlite3-wal", "hub.sqlite3-shm"}
    left_out = {"artifacts/staging/half", "instances/local/x", "hub.log", "agent/a"}
    assert files(target.state_dir) == kept - left_out | {"hub.lock"}
    for name in files(target.state_dir) - {"hub.sqlite3", "hub.lock"}:
        assert (target.state_dir / name).read_bytes() == (settings.state_dir / name).read_bytes()
    async with open_store(target) as store:
        assert await identity.claim(store, target, "fresh") == HUB
        assert await store.read(hold.load) == made.made_at


@pytest.mark.usefixtures("store")
async def test_what_is_no_backup_or_damaged_is_not_restored(
    settings: Settings, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    good, target = tmp_path / "backup.tar", elsewhere(settings, tmp_path, request)
    backups.back_up(settings, good)
    (tmp_path / "text").write_text("no tar")
    with pytest.raises(SettingsError, match="cannot be read as a backup"):
        restores.restore(target, tmp_path / "text")
    with tarfile.open(tmp_path / "other.tar", "w") as tar:
        archive.add_bytes(tar, "state/x", b"1")
    with pytest.raises(SettingsError, match="no manifest"):
        restores.restore(target, tmp_path / "other.tar")
    assert not target.state_dir.exists()
    bad = tmp_path / "bad.tar"
    bad.write_bytes(good.read_bytes().replace(b"made by", b"MADE BY", 1))
    with pytest.raises(SettingsError, match=r"its hash is not the manifest's; .* give the restore"):
        restores.restore(target, bad)
    with pytest.raises(SettingsError, match="was broken off: give it again"):
        async with open_store(target):
            pass
    restores.restore(target, good)
    with pytest.raises(SettingsError, match="is not empty"):
        restores.restore(target, good)


@pytest.mark.parametrize("name", ["../x", "state/../../x", "/etc/x", "state//x"])
def test_no_name_leads_out_of_the_directory(tmp_path: Path, name: str) -> None:
    member = archive.Member(1, sha256(b"1"))
    manifest = archive.Manifest(HUB, "1", "sqlite", 1.0, {name: member})
    with tarfile.open(tmp_path / "evil.tar", "w") as tar:
        archive.add_bytes(tar, name, b"1")
        archive.add_bytes(tar, archive.MANIFEST, manifest.dump())
    target = Settings(state_dir=tmp_path / "there")
    with pytest.raises(SettingsError, match="is no name of a file in a backup"):
        restores.restore(target, tmp_path / "evil.tar")
    assert not (tmp_path / "x").exists()


async def test_artifacts_that_a_new_attempt_removes_meanwhile_begin_it_anew(
    store: Store, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (old,) = databases.database_of(settings).artifacts()
    tries = []
    real = backups._state_files

    def with_a_new_attempt(given: Settings) -> object:
        tries.append(1)
        if len(tries) == 1:
            (settings.state_dir / "artifacts" / old.build / "1" / "out" / "a.txt").unlink()
            forget_artifacts(settings)
        return real(given)

    monkeypatch.setattr(backups, "_state_files", with_a_new_attempt)
    made = backups.back_up(settings, tmp_path / "backup.tar")
    assert (len(tries), made.missing) == (2, ())


def forget_artifacts(settings: Settings) -> None:
    """As the hub does when a build begins a new attempt."""
    if settings.database_url.startswith("postgresql"):
        url = settings.database_url.replace("+psycopg", "")
        with psycopg.connect(url) as other:
            other.execute("DELETE FROM artifacts")
        return
    with closing(sqlite3.connect(settings.state_dir / "hub.sqlite3")) as ours, ours:
        ours.execute("DELETE FROM artifacts")


@pytest.mark.usefixtures("store")
async def test_an_artifact_that_somebody_removed_by_hand_is_told(
    settings: Settings, tmp_path: Path
) -> None:
    (old,) = databases.database_of(settings).artifacts()
    (settings.state_dir / "artifacts" / old.build / "1" / "out" / "a.txt").unlink()
    made = backups.back_up(settings, tmp_path / "backup.tar")
    assert made.missing == (f"state/artifacts/{old.build}/1/out/a.txt",)


@pytest.mark.usefixtures("store")
async def test_refusals(settings: Settings, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.write_text("mine")
    with pytest.raises(SettingsError, match="exists already"):
        backups.back_up(settings, taken)
    with pytest.raises(SettingsError, match="elsewhere"):
        backups.back_up(settings, settings.state_dir / "backup.tar")
    with pytest.raises(SettingsError, match="was not written"):
        backups.back_up(settings, tmp_path / "none" / "backup.tar")
    backups.back_up(settings, tmp_path / "backup.tar")
    target = Settings(state_dir=tmp_path / "used", database_url=settings.database_url)
    target.prepare_state_dir()
    with process.hold_lock(target), pytest.raises(HubRuns, match="a hub runs already"):
        restores.restore(target, tmp_path / "backup.tar")
    other = Settings(state_dir=tmp_path / "other", database_url="postgresql://h/d")
    if settings.database_url.startswith("postgresql"):
        other = Settings(state_dir=tmp_path / "other")
    with pytest.raises(SettingsError, match="give one of its kind"):
        restores.restore(other, tmp_path / "backup.tar")


def killed_at(times: int, work: Callable[[], object]) -> bool:
    """Do it in a process that dies, as by kill -9, when it makes something durable for the Nth
    time. Returns whether it died.
    """
    child = os.fork()
    if child == 0:
        left, real = [times], os.fsync

        def fsync(descriptor: int) -> None:
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            real(descriptor)

        os.fsync = fsync
        try:
            work()
        except BaseException:  # noqa: BLE001 - nothing of the test's may go on in the child
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in {0, -signal.SIGKILL}
    return code != 0


@pytest.mark.usefixtures("store")
async def test_no_half_archive_has_the_name_when_a_backup_is_killed(
    settings: Settings, tmp_path: Path
) -> None:
    file, times = tmp_path / "backup.tar", 1
    while killed_at(times, lambda: backups.back_up(settings, file)):
        if file.exists():  # it was complete
            assert manifest(file).hub == HUB
            file.unlink()
        times += 1
    assert times > 2
    assert manifest(file).hub == HUB
    assert list(tmp_path.glob(".*")) == []  # what the killed ones left is gone


@pytest.mark.usefixtures("store")
async def test_no_hub_starts_on_a_restore_that_was_killed_and_it_can_be_given_again(
    settings: Settings, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    file, target, times = tmp_path / "backup.tar", elsewhere(settings, tmp_path, request), 1
    backups.back_up(settings, file)
    while killed_at(times, lambda: restores.restore(target, file)):
        if not target.restore_file.exists():
            break  # killed in the last moment, when all was done
        with pytest.raises(SettingsError, match="was broken off: give it again"):
            async with open_store(target):
                pass
        times += 1
    assert times > 9
    async with open_store(target) as restored:
        assert await identity.claim(restored, target, "fresh") == HUB
        assert await restored.read(hold.load) is not None


def manifest(file: Path) -> archive.Manifest:
    with tarfile.open(file) as tar:
        return archive.manifest_of(tar)
