"""Restores: a hub's database and state directory from a backup, into an empty directory.

A file marks the directory from the beginning to the end, so that a restore that was broken off is
refused by every hub, and begins anew when it is given again. The restored hub begins in hold: it
knows nothing of what happened after the backup (P18).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

from hostler_hub.errors import SettingsError
from hostler_hub.runtime import private_files, process
from hostler_hub.runtime.settings import Settings
from hostler_hub.store import archive, hold
from hostler_hub.store.archive import HashingReader, Manifest, Member
from hostler_hub.store.databases import Database, database_of, sync_directory

_COPY = "restored-database"


def refuse_unfinished(settings: Settings) -> None:
    """Raise SettingsError if a restore into the state directory was broken off."""
    if settings.restore_file.exists():
        raise SettingsError(
            f"a restore into {settings.state_dir} was broken off: give it again"
            f" (hostler-hub restore FILE --state-dir {settings.state_dir}), it begins anew"
        )


def restore(settings: Settings, source: Path) -> Manifest:
    """Restore the backup in the file `source`. Returns what it holds. Raises SettingsError, and
    HubRuns.
    """
    with _opened(source) as (tar, manifest):
        database = database_of(settings)
        if database.kind != manifest.database:
            raise SettingsError(
                f"{source} holds a {manifest.database} database, and database_url names one of"
                f" {database.kind}: give one of its kind"
            )
        settings.prepare_state_dir()
        with process.hold_lock(settings):
            _begin(settings, database, manifest)
            try:
                _extract(tar, manifest, settings.state_dir)
                copy = settings.state_dir / _COPY
                database.restore_from(copy, manifest.hub, hold.value(manifest.made_at))
                private_files.write(settings.identity_file, manifest.hub + "\n")
                _sync_all(settings.state_dir)
                settings.restore_file.unlink()
                sync_directory(settings.state_dir)
            except (OSError, ValueError, tarfile.TarError) as error:
                raise SettingsError(
                    f"{source} could not be restored: {error}; {settings.state_dir} is incomplete:"
                    " mend the cause and give the restore again"
                ) from error
    return manifest


@contextlib.contextmanager
def _opened(source: Path) -> Iterator[tuple[tarfile.TarFile, Manifest]]:
    try:
        tar = tarfile.open(source, mode="r:")  # noqa: SIM115 - closed below
    except (OSError, tarfile.TarError) as error:
        raise SettingsError(f"{source} cannot be read as a backup: {error}") from error
    with tar:
        try:
            manifest = archive.manifest_of(tar)
        except (OSError, ValueError, tarfile.TarError) as error:
            raise SettingsError(f"{source} cannot be restored: {error}") from error
        yield tar, manifest


def _begin(settings: Settings, database: Database, manifest: Manifest) -> None:
    """Mark the directory, and remove what a restore that was broken off has left in it."""
    directory = settings.state_dir
    entries = {each.name for each in directory.iterdir()} - {settings.lock_file.name}
    resumes = settings.restore_file.name in entries
    if entries and not resumes:
        raise SettingsError(
            f"{directory} is not empty ({', '.join(sorted(entries)[:3])}, ...): restore into a new"
            " directory (--state-dir), or move this one away first"
        )
    database.refuse_used(manifest.hub if resumes else None)
    settings.restore_file.touch(0o600)  # in one step: what is half made could not be told apart
    sync_directory(directory)
    for name in entries - {settings.restore_file.name}:
        path = directory / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _extract(tar: tarfile.TarFile, manifest: Manifest, directory: Path) -> None:
    """Write every member that the manifest names. Raises ValueError if one is missing, or not as
    the manifest says.
    """
    wanted = dict(manifest.members)
    database = archive.DATABASES[manifest.database]
    for info in tar:
        if info.name == archive.MANIFEST:
            continue
        expected = wanted.pop(info.name, None)
        target = directory / _COPY if info.name == database else _place(directory, info.name)
        if expected is None or not info.isreg():
            raise ValueError(f"the manifest does not name the file {info.name}")
        _write_member(tar, info, target, expected)
    if wanted:
        raise ValueError(f"the archive lacks {min(wanted)}")


def _place(directory: Path, name: str) -> Path:
    parts = name.removeprefix(archive.STATE).split("/")
    if not name.startswith(archive.STATE) or any(part in {"", ".", ".."} for part in parts):
        raise ValueError(f"{name!r} is no name of a file in a backup")
    return directory.joinpath(*parts)


def _write_member(
    tar: tarfile.TarFile, info: tarfile.TarInfo, target: Path, expected: Member
) -> None:
    for parent in reversed(target.relative_to(target.anchor).parents):
        Path(target.anchor, parent).mkdir(mode=0o700, exist_ok=True)
    source = tar.extractfile(info)
    assert source is not None
    reader = HashingReader(source)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(target, flags, 0o600), "wb") as file:
        for block in archive.blocks(reader):
            file.write(block)
        file.flush()
        os.fchmod(file.fileno(), info.mode & 0o777)
        os.utime(file.fileno(), (info.mtime, info.mtime))
        os.fsync(file.fileno())
    if reader.member != expected:
        raise ValueError(f"{info.name} is damaged: its hash is not the manifest's")


def _sync_all(directory: Path) -> None:
    for each, _, _ in os.walk(directory):
        sync_directory(Path(each))
