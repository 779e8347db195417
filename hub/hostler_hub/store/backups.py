"""Backups: one archive of a hub's database and state directory, made while the hub runs.

Theory of operation. First the database is copied, as it is at one moment; then the files. What the
database names is written before its row and under a name of its own, so a file that is there at
that moment is complete. But files go: a build that begins a new attempt removes the last one's
artifacts. So each artifact that the copy names is looked for in the archive, and compared by its
hash. If one is missing and the database of now does not name it any more, all begins anew; if it
still does, somebody has removed it by hand, and the manifest says so.

The archive is written beside its final name and renamed when it is complete and on the disk: there
is no half archive under that name. What a killed backup leaves is removed by the next one to it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from hostler_hub import __version__
from hostler_hub.errors import SettingsError
from hostler_hub.runtime import database_url
from hostler_hub.runtime.settings import Settings
from hostler_hub.store import archive, restores
from hostler_hub.store.archive import Manifest, Member
from hostler_hub.store.databases import Database, StoredArtifact, database_of, sync_directory

TRIES = 5
# What belongs to the process that runs, can be made anew, or lives on the machine itself.
LEFT_OUT = frozenset(
    {
        "agent",
        "agents",
        "hub.id",
        "hub.json",
        "hub.lock",
        "hub.log",
        "instances",
        "last-stop.json",
        "restore.unfinished",
    }
)
_STAGING = "staging"


def back_up(settings: Settings, target: Path) -> Manifest:
    """Write a backup to the file `target`, which must not exist. Returns what it holds. Raises
    SettingsError.
    """
    restores.refuse_unfinished(settings)
    target = target.absolute()
    if target.exists():
        raise SettingsError(f"{target} exists already: name a new file")
    if target.is_relative_to(settings.state_dir):
        raise SettingsError("write the backup elsewhere than into the state directory itself")
    try:
        with _directory_beside(target) as directory:
            manifest = _write_consistent(settings, directory)
            (directory / "archive").rename(target)
            sync_directory(target.parent)
    except OSError as error:
        raise SettingsError(f"{target} was not written: {error}") from error
    return manifest


def _write_consistent(settings: Settings, directory: Path) -> Manifest:
    database = database_of(settings)
    for _ in range(TRIES):
        manifest = _write(settings, database, directory)
        if manifest is not None:
            return manifest
    raise SettingsError(
        f"artifacts were removed during each of {TRIES} tries: back up when fewer builds run"
    )


def _write(settings: Settings, database: Database, directory: Path) -> Manifest | None:
    """Write the archive once; None if the hub has removed meanwhile what the copy names."""
    copied = directory / "database"
    copied.unlink(missing_ok=True)
    made_at = time.time()
    copy = database.copy_to(copied)
    with _private_file(directory / "archive") as file:
        with tarfile.open(fileobj=file, mode="w") as tar:
            name = archive.DATABASES[database.kind]
            members = {name: archive.add(tar, name, copied)}
            for path in _state_files(settings):
                with contextlib.suppress(FileNotFoundError):  # gone since: looked for below
                    name = archive.STATE + path.relative_to(settings.state_dir).as_posix()
                    members[name] = archive.add(tar, name, path)
            lacking = [each for each in copy.artifacts if not _holds(members, each)]
            if lacking and not set(lacking) <= set(database.artifacts()):
                return None
            missing = tuple(_name_of(each) for each in lacking)
            manifest = Manifest(copy.hub, __version__, database.kind, made_at, members, missing)
            archive.add_bytes(tar, archive.MANIFEST, manifest.dump())
        file.flush()
        os.fsync(file.fileno())
    return manifest


def _holds(members: Mapping[str, Member], artifact: StoredArtifact) -> bool:
    member = members.get(_name_of(artifact))
    return member is not None and member.sha256 == artifact.sha256


def _name_of(artifact: StoredArtifact) -> str:
    return f"{archive.STATE}artifacts/{artifact.build}/{artifact.attempt}/{artifact.file}"


def _state_files(settings: Settings) -> Iterator[Path]:
    """The regular files of the state directory that belong into a backup."""
    database = database_url.file_of(settings.database_url)
    beside = () if database is None else [f"{database}{each}" for each in ("", "-wal", "-shm")]
    for entry in sorted(settings.state_dir.iterdir()):
        if entry.name in LEFT_OUT or str(entry) in beside:
            continue
        if entry.is_file():
            yield entry
        for directory, inner, files in os.walk(entry):  # nothing for a file
            if Path(directory) == entry and _STAGING in inner:
                inner.remove(_STAGING)
            yield from (
                path
                for name in files
                if (path := Path(directory) / name).is_file() and not path.is_symlink()
            )


@contextlib.contextmanager
def _private_file(path: Path) -> Iterator[IO[bytes]]:
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o600), "w+b") as file:
        yield file


@contextlib.contextmanager
def _directory_beside(target: Path) -> Iterator[Path]:
    """A directory of our own on the target's file system; what killed backups left is removed."""
    pattern = f".{target.name}.*.part"
    for left in target.parent.glob(pattern):
        with _locked(left) as ours:
            if ours:
                shutil.rmtree(left, ignore_errors=True)
    made = Path(tempfile.mkdtemp(".part", f".{target.name}.", target.parent))
    try:
        with _locked(made):
            yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[bool]:
    """Hold the directory's lock; yields whether it was to be had."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(descriptor)
