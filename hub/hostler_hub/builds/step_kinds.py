"""The kinds of step: which of Buildbot's commands each sends to the agent, and what it returns.

Each kind has a script, a generator that does no I/O: it yields Calls, is sent the results of
each (a call that fails ends the step), and returns the step's result as plain JSON, or None.
Most kinds are one call; the table at the end has the name of their command, its arguments and
what its answer means.
"""

from __future__ import annotations

import re
import stat as stat_module
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hostler_hub.builds.errors import StepFailed
from hostler_hub.specs.build import BuildSpec
from hostler_hub.specs.fields import is_absolute
from hostler_hub.specs.step import FILE_SIZE_BYTES, PROPERTY_SIZE, StepSpec

# An agent's block to us must fit its messages (1 MiB); ours to it could be larger, to no gain.
BLOCK_BYTES = 512 * 1024
GLOB_FILES = 10_000
_WILD = re.compile(r"[*?\[]")
_PROPERTY_LINE = re.compile(r"([A-Za-z_][A-Za-z0-9_.-]{0,127})=(.*)", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Workspace:
    """The directory on the worker in which a build works, ``root``, and the build."""

    build: BuildSpec
    root: str

    def path(self, path: str) -> str:
        """The absolute path of ``path``, which may be relative to the workspace. Agents on every
        system accept a slash.
        """
        return path if is_absolute(path) else f"{self.root}/{path}"

    def within(self, path: str, *, follow_links: bool) -> str | None:
        """The directory that an upload from ``path`` must not leave by links: the workspace, or the
        directory above what is outside of it; None if it may.
        """
        if follow_links:
            return None
        return _fixed_part(path) if is_absolute(path) else self.root

    def pattern(self, pattern: str) -> str:
        """The absolute glob pattern of ``pattern``, which may be relative to the workspace.
        Wildcard characters in the workspace's own path are escaped.
        """
        if is_absolute(pattern):
            return pattern
        return f"{_WILD.sub(lambda wild: f'[{wild[0]}]', self.root)}/{pattern}"


@dataclass(frozen=True, slots=True)
class ReceiveFile:
    """The agent sends a file, which becomes the artifact ``name``."""

    name: str
    max_size_bytes: int


@dataclass(frozen=True, slots=True)
class ReceiveDirectory:
    """The agent sends a directory, whose files become artifacts beneath ``name``."""

    name: str
    compress: str | None


@dataclass(frozen=True, slots=True)
class SendFile:
    """The hub sends the agent a file: the text ``content``, or the stored file with ``sha256``."""

    content: str | None
    sha256: str | None


Wanted = ReceiveFile | ReceiveDirectory | SendFile


@dataclass(frozen=True, slots=True)
class Call:
    """One command for the agent.

    Its results are sent to the script as a mapping: "stat" and "files" as the command reported
    them; of a transfer "stored", the files with their sizes and hashes; with ``wants_output``
    "stdout", as bytes. ``within``: the directory out of which an upload follows no link.
    """

    command: str
    args: dict[str, Any]
    transfer: Wanted | None = None
    wants_output: bool = False
    within: str | None = None


Brought = Mapping[str, Any]
Result = dict[str, Any] | None
Script = Generator[Call, Brought, Result]


@dataclass(frozen=True, slots=True)
class StepKind:
    """One kind of step.

    ``resumes``: it is one command under one id, which the agent continues through lost connections
    and restarts of the hub; other kinds begin again. ``is_timed``: the hub enforces the timeouts,
    because the protocol gives the command none. ``is_command``: it runs the submitter's program.
    """

    script: Callable[[StepSpec, Workspace], Script]
    resumes: bool = True
    is_timed: bool = False
    is_command: bool = False


# --- arguments, in Buildbot's names --------------------------------------------------------------


def _shell(step: StepSpec, workspace: Workspace) -> dict[str, Any]:
    command = step.set_property.command if step.set_property else step.command
    assert command is not None
    args: dict[str, Any] = {
        "command": command if isinstance(command, str) else list(command),
        "workdir": workspace.root if step.workdir is None else workspace.path(step.workdir),
        "env": {**workspace.build.env, **step.env},
        "timeout": step.timeout_s,
        "maxTime": step.max_time_s,
        "max_lines": step.max_lines,
        "sigtermTime": step.sigterm_time_s,
        "logEnviron": step.log_environment,
        "want_stdout": True,
        "want_stderr": True,
    }
    if step.use_pty:
        args["usePTY"] = True
    if step.initial_stdin is not None:
        args["initial_stdin"] = step.initial_stdin
    if step.logfiles:
        args["logfiles"] = {name: log.model_dump() for name, log in step.logfiles.items()}
    return args


def _timed(step: StepSpec, args: dict[str, Any]) -> dict[str, Any]:
    """Add the step's timeouts to the arguments of a command on files. A stock worker heeds them
    only where it runs a program for the command.
    """
    return {**args, "timeout": step.timeout_s, "maxTime": step.max_time_s, "logEnviron": False}


def _paths(step: StepSpec, workspace: Workspace) -> dict[str, Any]:
    paths = step.mkdir or step.rmdir or ()
    return _timed(step, {"paths": [workspace.path(path) for path in paths]})


def _path(step: StepSpec, workspace: Workspace) -> dict[str, Any]:
    return _timed(step, {"path": workspace.path(step.detail(step.kind))})


def _pattern(step: StepSpec, workspace: Workspace) -> dict[str, Any]:
    assert step.glob is not None
    return _timed(step, {"path": workspace.pattern(step.glob)})


def _copy(step: StepSpec, workspace: Workspace) -> dict[str, Any]:
    assert step.copy_ is not None
    paths = {
        "from_path": workspace.path(step.copy_.from_),
        "to_path": workspace.path(step.copy_.to),
    }
    return _timed(step, paths)


# --- what an answer means -------------------------------------------------------------------------


def _nothing(_: Brought) -> Result:
    return None


def _stat(brought: Brought) -> Result:
    """The ten numbers of a POSIX stat, in its order."""
    return {"stat": _numbers(brought.get("stat"))}


def _files(brought: Brought) -> Result:
    return {"files": _names(brought.get("files"))}


def _numbers(value: Any) -> list[int | float]:
    good = isinstance(value, (list, tuple)) and len(value) >= 10
    if not good or not all(isinstance(each, (int, float)) for each in value[:10]):
        raise StepFailed("the agent's answer holds no stat")
    return list(value[:10])


def _names(value: Any) -> list[str]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(each, str) for each in value):
        raise StepFailed("the agent's answer holds no list of files")
    return sorted(value)


# --- scripts --------------------------------------------------------------------------------------


def _upload_file(
    path: str, name: str, max_size_bytes: int, within: str | None, *, keep_stamp: bool = False
) -> Call:
    args = {
        "path": path,
        # A stock worker takes a file of exactly maxsize for too large; ours is the limit's end.
        "maxsize": max_size_bytes + 1,
        "blocksize": BLOCK_BYTES,
        "keepstamp": keep_stamp,
    }
    return Call("upload_file", args, ReceiveFile(name, max_size_bytes), within=within)


def _upload_tree(path: str, name: str, within: str | None, compress: str | None = None) -> Call:
    args = {"path": path, "maxsize": None, "blocksize": BLOCK_BYTES, "compress": compress}
    return Call("upload_directory", args, ReceiveDirectory(name, compress), within=within)


def _upload(step: StepSpec, workspace: Workspace) -> Script:
    upload = step.upload
    assert upload is not None
    path = workspace.path(upload.from_)
    limit, keep_stamp = upload.max_size_bytes, upload.keep_stamp
    within = workspace.within(upload.from_, follow_links=upload.follow_links)
    brought = yield _upload_file(path, upload.artifact, limit, within, keep_stamp=keep_stamp)
    return {"artifacts": brought["stored"]}


def _upload_directory(step: StepSpec, workspace: Workspace) -> Script:
    upload = step.upload_directory
    assert upload is not None
    within = workspace.within(upload.from_, follow_links=upload.follow_links)
    path = workspace.path(upload.from_)
    brought = yield _upload_tree(path, upload.artifact, within, upload.compress)
    return _summary(brought["stored"])


def _upload_glob(step: StepSpec, workspace: Workspace) -> Script:
    """Upload the files that match a pattern, as Buildbot's MultipleFileUpload does. The step fails
    if nothing matches.
    """
    upload = step.upload_glob
    assert upload is not None
    brought = yield Call("glob", {"path": workspace.pattern(upload.pattern)})
    found = _names(brought.get("files"))
    if not 0 < len(found) <= GLOB_FILES:
        raise StepFailed(f"{len(found)} files match {upload.pattern}; 1 to {GLOB_FILES} are taken")
    base = workspace.path(_fixed_part(upload.pattern))
    within = workspace.within(upload.pattern, follow_links=upload.follow_links)
    stored: list[dict[str, Any]] = []
    for path in found:
        name = _name_of(path, base, upload.name)
        mode = int(_numbers((yield Call("stat", {"path": path})).get("stat"))[0])
        if not stat_module.S_ISDIR(mode):
            stored += (yield _upload_file(path, name, FILE_SIZE_BYTES, within))["stored"]
        elif "**" not in upload.pattern:  # else the files in it have been found, too
            stored += (yield _upload_tree(path, name, within))["stored"]
    return _summary(stored)


def _fixed_part(pattern: str) -> str:
    """The directory above the pattern's first wildcard, with its slash."""
    wild = _WILD.search(pattern)
    fixed = pattern[: wild.start()] if wild else pattern
    return fixed[: max(fixed.rfind("/"), fixed.rfind("\\")) + 1]


def _name_of(path: str, base: str, folder: str | None) -> str:
    """The name of the artifact for ``path``: its path below ``base`` (else its last
    part), within ``folder``.
    """
    if not path.startswith("/"):  # Windows; elsewhere a backslash may be in a name
        path, base = path.replace("\\", "/"), base.replace("\\", "/")
    name = path.removeprefix(base).strip("/") if path.startswith(base) else path.rpartition("/")[2]
    return f"{folder}/{name}" if folder else name


def _summary(stored: list[dict[str, Any]]) -> Result:
    """The result of a step that stored many files: how many, and their size. Their names are in the
    list of artifacts.
    """
    size_bytes = sum(file["size_bytes"] for file in stored)
    return {"files": len(stored), "size_bytes": size_bytes}


def _download(step: StepSpec, workspace: Workspace) -> Script:
    download = step.download
    assert download is not None
    args = {
        "path": workspace.path(download.to),
        "maxsize": None,
        "blocksize": BLOCK_BYTES,
        "mode": None if download.mode is None else int(download.mode, 8),
    }
    brought = yield Call("download_file", args, SendFile(download.content, download.file))
    return dict(brought["stored"][0])


def _set_property(step: StepSpec, workspace: Workspace) -> Script:
    wanted = step.set_property
    assert wanted is not None
    brought = yield Call("shell", _shell(step, workspace), wants_output=True)
    text = brought["stdout"].decode("utf-8", "replace").replace("\r\n", "\n")
    if wanted.name is None:
        lines = text.splitlines()
        found = dict(_properties([line.strip() for line in lines] if wanted.strip else lines))
    else:
        found = {wanted.name: text}
    if wanted.strip:
        found = {name: value.strip() for name, value in found.items()}
    for name, value in found.items():
        if len(value) > PROPERTY_SIZE or _CONTROL.search(value):
            text = f"at most {PROPERTY_SIZE} characters, none of them a control character"
            raise StepFailed(f"the output is no value for property {name}: {text}")
    return {"properties": found}


def _properties(lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        match = _PROPERTY_LINE.fullmatch(line)
        if match is None:
            raise StepFailed(f"line {number} of the output is not NAME=VALUE")
        yield match[1], match[2]


# --- the table ------------------------------------------------------------------------------------


def _one(
    command: str,
    args: Callable[[StepSpec, Workspace], dict[str, Any]],
    meaning: Callable[[Brought], Result] = _nothing,
) -> StepKind:
    """A kind of step that is one call. ``meaning`` makes the step's result of what
    the command reports.
    """

    def script(step: StepSpec, workspace: Workspace) -> Script:
        return meaning((yield Call(command, args(step, workspace))))

    return StepKind(script, is_command=command == "shell")


KINDS: Mapping[str, StepKind] = {
    "command": _one("shell", _shell),
    "mkdir": _one("mkdir", _paths),
    "rmdir": _one("rmdir", _paths),
    "copy": _one("cpdir", _copy),
    "remove": _one("rmfile", _path),
    "stat": _one("stat", _path, _stat),
    "glob": _one("glob", _pattern, _files),
    "listdir": _one("listdir", _path, _files),
    "set_property": StepKind(_set_property, is_command=True),
    "upload": StepKind(_upload, resumes=False, is_timed=True),
    "upload_directory": StepKind(_upload_directory, resumes=False, is_timed=True),
    "upload_glob": StepKind(_upload_glob, resumes=False, is_timed=True),
    "download": StepKind(_download, resumes=False, is_timed=True),
}
