"""The real agent, but for its credentials: they are written to the file in LEAK, or read from the
file in STOLEN. So a test has what no build could have got at, or only from a less careful agent.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from hostler_agent.cli import main
from hostler_agent.config import Config
from hostler_agent.hub.credentials import Credentials

_of = Credentials.of


def _leak(config: Config, *, isolated: bool) -> Credentials:
    made = _of(config, isolated=isolated)
    leak = Path(os.environ["LEAK"])
    leak.with_suffix(".new").write_text(json.dumps([made.token, made.session]))
    leak.with_suffix(".new").rename(leak)
    return made


def _steal(_config: Config, *, isolated: bool) -> Credentials:
    del isolated
    return Credentials(*json.loads(Path(os.environ["STOLEN"]).read_text()))


def leaking(directory: Path, name: str) -> tuple[dict[str, object], Path]:
    """The options of a local worker whose agents leak their credentials, and the file that has
    them: a list of token and session secret.
    """
    loot, python = directory / f"{name}.loot", directory / f"{name}.sh"
    python.write_text(f'#!/bin/sh\nLEAK={loot} exec {sys.executable} {__file__} "$@"\n')
    python.chmod(0o755)
    return {"python": str(python)}, loot


if __name__ == "__main__":
    Credentials.of = _leak if "LEAK" in os.environ else _steal  # type: ignore[method-assign]
    if "STOLEN" in os.environ:
        # An agent ends what one of its name has left; the thief leaves its victim's jobs alone.
        Config.root_name = property(lambda _: f"thief-{os.getpid()}")  # type: ignore[assignment,method-assign]
    sys.exit(main(sys.argv[sys.argv.index("hostler_agent") + 1 :]))
