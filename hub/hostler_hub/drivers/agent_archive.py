"""Builds the agent archive: one file with the agent and its dependencies, from what is installed
here, for machines that have nothing but Python.

The same installation yields the same bytes, so the digest identifies the contents: drivers push the
file to a machine that has no archive of that digest, and several hubs and workers share an archive
that is there already. Compiled modules are left out, because zipimport cannot load them and they
fit one Python version only; the version pins in pyproject therefore admit only releases whose
Python code runs on 3.9.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

import hostler_agent
from hostler_hub.drivers.contract import AgentArchive

OLDEST_PYTHON = (3, 9)
OLD_PYTHON_STATUS = 92  # drivers know it: nothing was done
DEPENDENCIES = ("msgpack", "websockets")
SUFFIX = ".pyz"
# An instance that is being started while the hub is upgraded still asks for the older one.
KEEP_S = 24 * 3600.0

_UNUSED = ("websockets/legacy/", "websockets/sync/", "websockets/__main__.py", "websockets/cli.py")
_LICENCES = ("LICENSE", "COPYING")
_SHEBANG = b"#!/usr/bin/env python3\n"
# The earliest time a zip can hold: files carry no times of their own.
_NO_TIME = (1980, 1, 1, 0, 0, 0)
# Parsed by any Python, so that one that is too old says so instead of a syntax error.
_MAIN = f"""\
import sys

if sys.version_info < {OLDEST_PYTHON}:
    sys.stderr.write(
        "hostler-agent: Python {OLDEST_PYTHON[0]}.{OLDEST_PYTHON[1]} or newer is needed, "
        "this is %d.%d (%s)\\n" % (sys.version_info[0], sys.version_info[1], sys.executable)
    )
    sys.exit({OLD_PYTHON_STATUS})

if __name__ == "__main__":
    from hostler_agent.__main__ import main

    sys.exit(main())
"""


def install(directory: Path) -> AgentArchive:
    """Write the archive into `directory`, named by its digest, and remove archives older than
    KEEP_S.
    """
    content = build()
    digest = hashlib.sha256(content).hexdigest()
    archive = AgentArchive(path_of(directory, digest), digest)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    write(archive.path, content)
    for other in directory.glob(f"*{SUFFIX}"):
        with contextlib.suppress(FileNotFoundError):
            if other != archive.path and other.stat().st_mtime < time.time() - KEEP_S:
                other.unlink()
    return archive


def path_of(directory: Path, sha256: str) -> Path:
    """The path in `directory` of the archive with this digest. The file need not exist."""
    return directory / f"{sha256}{SUFFIX}"


def write(target: Path, content: bytes) -> None:
    """Write a file with mode 755, replacing `target` atomically. Raises OSError."""
    number, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:16]}")
    try:
        with open(number, "wb") as file:
            file.write(content)
            os.fchmod(number, 0o755)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def build() -> bytes:
    """Build the archive and return its content: a zip file that begins with a shebang line."""
    contents = io.BytesIO()
    contents.write(_SHEBANG)
    files = sources()
    with zipfile.ZipFile(contents, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _NO_TIME)
            entry.create_system = 3  # the same bytes wherever a hub runs
            archive.writestr(entry, files[name], zipfile.ZIP_DEFLATED)
    return contents.getvalue()


def sources() -> Mapping[str, bytes]:
    """The files of the archive by their names in it: Python sources and the dependencies'
    licences.
    """
    files = {"__main__.py": _MAIN.encode(), **dict(_agent())}
    for name in DEPENDENCIES:
        files.update(_dependency(name))
    return files


def _agent() -> Iterator[tuple[str, bytes]]:
    package = Path(hostler_agent.__file__).parent
    for path in package.rglob("*.py"):
        yield path.relative_to(package.parent).as_posix(), path.read_bytes()


def _dependency(name: str) -> Iterator[tuple[str, bytes]]:
    for path in metadata.distribution(name).files or ():
        entry = path.as_posix()
        is_code = entry.startswith(f"{name}/") and path.suffix == ".py"
        is_licence = ".dist-info/" in entry and path.stem in _LICENCES
        if (is_code or is_licence) and not entry.startswith(_UNUSED):
            yield entry, Path(str(path.locate())).read_bytes()
