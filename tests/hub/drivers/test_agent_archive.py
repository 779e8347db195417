"""The agent as one file: the same for the same installation, fit for Python 3.9, kept by digest."""

from __future__ import annotations

import ast
import hashlib
import io
import os
import time
import zipfile
from pathlib import Path

from hostler_hub.drivers import agent_archive


def test_the_same_installation_makes_the_same_bytes() -> None:
    assert agent_archive.build() == agent_archive.build()


def test_it_is_installed_under_its_digest(tmp_path: Path) -> None:
    made = agent_archive.install(tmp_path / "agent")
    content = made.path.read_bytes()
    assert made.sha256 == hashlib.sha256(content).hexdigest()
    assert made.path == agent_archive.path_of(tmp_path / "agent", made.sha256)
    assert content.startswith(b"#!")
    assert agent_archive.install(tmp_path / "agent") == made
    assert list(made.path.parent.iterdir()) == [made.path]


def test_an_older_one_stays_for_a_day(tmp_path: Path) -> None:
    young, old = tmp_path / f"{'a' * 64}.pyz", tmp_path / f"{'b' * 64}.pyz"
    for path in (young, old):
        path.write_bytes(b"")
    os.utime(old, (0, time.time() - agent_archive.KEEP_S - 60))
    made = agent_archive.install(tmp_path)
    assert set(tmp_path.iterdir()) == {made.path, young}


def test_every_part_parses_as_python_3_9() -> None:
    """The dependencies are pinned to releases of which this is true, whatever they declare."""
    with zipfile.ZipFile(io.BytesIO(agent_archive.build())) as packed:
        sources = {name: packed.read(name) for name in packed.namelist() if name.endswith(".py")}
    for name, source in sources.items():
        ast.parse(source, name, feature_version=agent_archive.OLDEST_PYTHON)
    assert {"__main__.py", "hostler_agent/cli.py", "msgpack/fallback.py"} <= set(sources)
    assert "websockets/asyncio/client.py" in sources
