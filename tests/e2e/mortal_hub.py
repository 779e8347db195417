"""A hub that is killed at one point of its work: `mortal_hub.py POINT serve ...`.

The program is the real one; only the named function is wrapped, so that SIGKILL comes exactly
before or after it, which from outside would be a matter of luck.
"""

from __future__ import annotations

import functools
import inspect
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from hostler_agent.wire import codec
from hostler_agent.wire.limits import TO_AGENT
from hostler_hub import cli
from hostler_hub.admission import Admission
from hostler_hub.agents import AgentSession
from hostler_hub.command_run import CommandRun
from hostler_hub.dispatch import Dispatcher
from hostler_hub.drivers.local import LocalDriver
from hostler_hub.queue import Queue
from hostler_hub.runner import Runner

POINTS: dict[str, tuple[type, str]] = {
    "before create": (LocalDriver, "_spawn"),
    "after create": (LocalDriver, "_spawn"),
    "before attach": (Admission, "admit"),
    "before lease": (Dispatcher, "_lease"),
    "before start": (Queue, "start"),
    "after start_command": (AgentSession, "_send"),
    "before complete": (CommandRun, "complete"),
    "before release": (Runner, "_release"),
    "before destroy": (LocalDriver, "destroy"),
    "after destroy": (LocalDriver, "destroy"),
}


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def is_meant(point: str, arguments: tuple[Any, ...]) -> bool:
    if point != "after start_command":
        return True
    message = codec.decode(arguments[1], TO_AGENT)
    return message.get("command_name") == "shell"


def wrap(point: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def plain(*arguments: Any, **keywords: Any) -> Any:
        if point.startswith("before"):
            die()
        result = function(*arguments, **keywords)
        die()
        return result

    @functools.wraps(function)
    async def awaited(*arguments: Any, **keywords: Any) -> Any:
        if point.startswith("before"):
            die()
        result = await function(*arguments, **keywords)
        if is_meant(point, arguments):
            die()
        return result

    return awaited if inspect.iscoroutinefunction(function) else plain


if __name__ == "__main__":
    point = sys.argv.pop(1)
    owner, name = POINTS[point]
    setattr(owner, name, wrap(point, getattr(owner, name)))
    sys.exit(cli.main())
