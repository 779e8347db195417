"""A stock buildbot-worker on the Windows of `wine`, with packages of its own beside it."""

from __future__ import annotations

import contextlib
import shutil
from typing import TYPE_CHECKING

from peers import wine
from peers.wine import CACHE, windows_path

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

SITE = CACHE / "stock"
# Later releases of cryptography want a library that Wine 8 has not; the worker uses none of it.
PACKAGES = (
    "buildbot-worker==4.3.0",
    "autobahn==26.7.1",
    "cryptography==41.0.7",
    "pywin32==312",
    "twisted==26.10.0",
)


@contextlib.contextmanager
def running(
    windows: wine.Windows, directory: Path, port: int, name: str, password: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A worker that attaches to a master on this machine; killed afterwards."""
    _install()
    home = windows_path(directory)
    made = wine.Output()
    words = ("-m", "stock", windows_path(SITE))
    master = f"127.0.0.1:{port}"
    creating = windows.start(
        *words, "create", home, master, name, password, stdout=made.target, stderr=made.target
    )
    code = creating.wait(timeout=wine.SCENARIO_S)
    said = made.close()
    if code:
        raise RuntimeError(f"no buildbot-worker in Windows:\n{said}")
    output = wine.Output()
    process = windows.start(*words, "run", home, stdout=output.target, stderr=output.target)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        output.close()


def _install() -> None:
    recipe = SITE / "recipe"
    wanted = "\n".join(PACKAGES)
    with wine.lock():
        if recipe.exists() and recipe.read_text() == wanted:
            return
        shutil.rmtree(SITE, ignore_errors=True)
        wine.install_for_windows(SITE, PACKAGES)
        recipe.write_text(wanted)
