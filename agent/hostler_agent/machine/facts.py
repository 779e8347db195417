"""What the agent reports about itself and its machine when a hub asks (get_worker_info).

A stock Buildbot master needs `environ`, `system`, `basedir`, `numcpus`, `version`,
`worker_commands` and `delete_leftover_dirs`, and turns everything else into properties. It gets an
allowlist of the environment: Buildbot's own worker sends everything, secrets included.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Optional

from hostler_agent import __version__, machine

OS_RELEASE_FILES = (Path("/etc/os-release"), Path("/usr/lib/os-release"))
OS_KEYS = ("os_id", "os_id_like", "os_version_id", "os_version_codename")
"""Keys that are always present; null if the machine does not tell."""

ENVIRONMENT = frozenset(
    [
        "PATH",
        "HOME",
        "LANG",
        "LC_ALL",
        "USER",
        "LOGNAME",
        "TMPDIR",
        "SHELL",
        "TZ",
        "SYSTEMROOT",
        "SYSTEMDRIVE",
        "WINDIR",
        "COMSPEC",
        "PATHEXT",
        "TEMP",
        "TMP",
        "USERNAME",
        "USERPROFILE",
        "PROGRAMFILES",
        "PROGRAMDATA",
        "APPDATA",
        "LOCALAPPDATA",
        "NUMBER_OF_PROCESSORS",
        "PROCESSOR_ARCHITECTURE",
        "OS",
    ]
)
"""The environment variables that may be reported, in upper case (Windows ignores case)."""

OLDER_NAMES = {
    "upload_file": "uploadFile",
    "upload_directory": "uploadDirectory",
    "download_file": "downloadFile",
}
"""Names under which the transfer commands are announced as well: a master asks whether the worker
has `uploadFile`, and then sends it `upload_file`."""

USER, CONTAINER, NONE = "user", "container", "none"
"""The values of the fact `isolation`: what separates builds from agent and neighbours."""

MAX_INFO_FILE_BYTES = 4096
MAX_INFO_FILES = 64


def worker_info(
    basedir: Path, commands: Mapping[str, str], isolation: str = NONE
) -> dict[str, Any]:
    """The report for a stock master; `commands` maps commands to their versions. `isolation`: see
    machine_facts.
    """
    return {
        **info_files(basedir / "info"),
        **machine_facts(basedir, isolation),
        "environ": environment(os.environ),
        "system": os.name,
        "basedir": str(basedir),
        "version": __version__,
        "worker_commands": announced(commands),
        # Never delete on a master's word what we did not make.
        "delete_leftover_dirs": False,
    }


def announced(commands: Mapping[str, str]) -> dict[str, str]:
    """The commands' versions; those of transfers also under the names that Buildbot's steps ask
    for.
    """
    older = {OLDER_NAMES[name]: commands[name] for name in OLDER_NAMES if name in commands}
    return {**commands, **older}


def machine_facts(workdir: Path, isolation: str = NONE) -> dict[str, Any]:
    """Facts of the machine: texts and numbers, None if unknown. All sizes are in MiB; disk sizes
    are of the disk that builds work on. `isolation` is USER, CONTAINER or NONE.
    """
    host, architecture = machine.name()
    cpus = machine.cpu_count()
    disk, disk_free = disk_mb(workdir)
    return {
        **os_release(),
        "numcpus": cpus,  # a stock master's name for it
        "cpu_count": cpus,
        "memory_mb": machine.memory_mb(),
        "disk_mb": disk,
        "disk_free_mb": disk_free,
        "hostname": host,
        "architecture": architecture,
        "platform": sys.platform,
        "long_paths": machine.has_long_paths(),
        "isolation": isolation,
        "python_version": "{}.{}.{}".format(*sys.version_info[:3]),
    }


def disk_mb(path: Path) -> tuple[Optional[int], Optional[int]]:
    """The total and the free size of the directory's disk for this user, in MiB; (None, None) if
    unknown.
    """
    try:
        usage = shutil.disk_usage(path)
    except OSError:
        return None, None
    return usage.total // 2**20, usage.free // 2**20


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """The variables that may be reported (see ENVIRONMENT), because they never hold a secret."""
    return {
        # MessagePack takes no lone surrogates, which stand for bytes that are no UTF-8.
        name: value.encode("utf-8", "replace").decode()
        for name, value in variables.items()
        if name.upper() in ENVIRONMENT
    }


def os_release(files: tuple[Path, ...] = OS_RELEASE_FILES) -> dict[str, Optional[str]]:
    """The fields of os-release(5), in lower case after `os_`; OS_KEYS are always present."""
    facts: dict[str, Optional[str]] = dict.fromkeys(OS_KEYS)
    told = machine.os_release()
    if told:
        return {**facts, **{f"os_{name}": value for name, value in told.items()}}
    for path in files:
        try:
            text = path.read_text("utf-8", "replace")
        except OSError:
            continue
        facts.update(_assignments(text))
        break
    return facts


def _assignments(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        if equals and not key.startswith("#"):
            bare = _unquoted(value)
            if bare:
                yield f"os_{key.lower()}", bare


def _unquoted(value: str) -> str:
    """A shell word without its quotes. os-release allows only a backslash as an escape."""
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
        value = value[1:-1]
    plain = ""
    characters = iter(value)
    for character in characters:
        plain += next(characters, "") if character == "\\" else character
    return plain


def info_files(directory: Path) -> dict[str, str]:
    """The contents of the small text files in `info` (`admin`, `host`), which administrators write,
    by name.
    """
    found: dict[str, str] = {}
    try:
        paths = sorted(directory.iterdir())
    except OSError:
        return found
    for path in paths[:MAX_INFO_FILES]:
        text = _small_text(path)
        if text is not None:
            found[path.name] = text
    return found


def _small_text(path: Path) -> Optional[str]:
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            content = file.read(MAX_INFO_FILE_BYTES + 1)
        path.name.encode("utf-8")
        return content.decode("utf-8") if len(content) <= MAX_INFO_FILE_BYTES else None
    except (OSError, UnicodeError):
        return None
