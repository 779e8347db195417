"""The parameters for starting and ending an agent, the same on every platform."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hostler_agent.instances.mark import Mark

RECORD = "process.json"
LOG = "agent.log"
DETACHED = "detached"
"""The value of `Start.way` for a process in a session of its own, without a service manager."""


@dataclass(frozen=True)
class Program:
    """How the agent is run on this machine. `argv` is what comes before the agent's verb; `path` is
    the archive, or its unpacked directory, that the agent is run from.
    """

    argv: tuple[str, ...]
    path: Path

    @classmethod
    def running(cls) -> Program:
        """The program that this process is running: an agent's archive, packed or unpacked."""
        return cls((sys.executable, "-I", "-S", sys.argv[0]), Path(sys.argv[0]).absolute())

    @classmethod
    def installed(cls, python: str) -> Program:
        """The agent's package that the interpreter `python` can import."""
        # Isolated: what the environment says of Python is for builds.
        return cls((python, "-I", "-m", "hostler_agent"), Path(__file__).parents[1])


@dataclass(frozen=True)
class Start:
    """An agent to be started. `directory` is its instance's own and holds its configuration; `way`
    names one of the platform's ways to start a process (empty: the platform's best).
    """

    mark: Mark
    program: Program
    directory: Path
    environment: Mapping[str, str]
    way: str = ""


@dataclass(frozen=True)
class Ending:
    """How an agent is to be ended. `containment` held its jobs together; `grace_s` is how long it
    may take to end them itself; `program` clears what a killed agent's jobs have left.
    """

    program: Program
    containment: str
    grace_s: float
