"""Crash points: places in the hub's work where it may die, by name.

One table for two ways to die there: by SIGKILL in a process of its own (tests/e2e) and, a thousand
times faster, in a simulation (tests/simulation). From outside it would be a matter of luck to hit
one. Simulations also have "before commit X" and "after commit X", for every X that is written.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from unittest import mock

from hostler_agent.wire import codec
from hostler_agent.wire.limits import TO_AGENT
from hostler_hub.builds.command import CommandRun
from hostler_hub.builds.runner import Runner
from hostler_hub.builds.supervisor import Supervisor
from hostler_hub.scheduling.dispatcher import Dispatcher
from hostler_hub.workers.agents.session import AgentSession
from hostler_hub.workers.connections.admission import Admission

POINTS: dict[str, tuple[type | None, str]] = {
    "before create": (None, "create"),
    "after create": (None, "create"),
    "before attach": (Admission, "admit"),
    "before lease": (Dispatcher, "_lease"),
    "before start": (Supervisor, "start"),
    "after start_command": (AgentSession, "_send"),
    "before update": (CommandRun, "update"),
    "after update": (CommandRun, "update"),
    "before complete": (CommandRun, "complete"),
    "before release": (Runner, "_release"),
    "before destroy": (None, "destroy"),
    "after destroy": (None, "destroy"),
}
"""Name: the class and its method; None stands for the driver's class."""


@dataclass(frozen=True)
class Death:
    """How to die: in a coroutine, and in a plain function. Neither returns."""

    awaited: Callable[[], Awaitable[Any]]
    plain: Callable[[], Any]


def place(name: str, driver: type, driver_methods: Mapping[str, str]) -> tuple[Any, str]:
    """The class and the method's name of a point, for a hub with that driver."""
    owner, method = POINTS[name]
    return (owner, method) if owner is not None else (driver, driver_methods.get(method, method))


@contextlib.contextmanager
def armed(name: str, owner: Any, method: str, death: Death) -> Iterator[None]:
    """While it lasts, whoever comes to the point dies there."""
    with mock.patch.object(owner, method, lethal(name, getattr(owner, method), death)):
        yield


def lethal(name: str, function: Callable[..., Any], death: Death) -> Callable[..., Any]:
    """The function, with death before or after it."""
    before = name.startswith("before")

    @functools.wraps(function)
    def plain(*arguments: Any, **keywords: Any) -> Any:
        if before:
            death.plain()
        result = function(*arguments, **keywords)
        death.plain()
        return result

    @functools.wraps(function)
    async def awaited(*arguments: Any, **keywords: Any) -> Any:
        if before:
            await death.awaited()
        result = await function(*arguments, **keywords)
        if _is_meant(name, arguments):
            await death.awaited()
        return result

    return awaited if inspect.iscoroutinefunction(function) else plain


def _is_meant(name: str, arguments: tuple[Any, ...]) -> bool:
    if name != "after start_command":
        return True
    message = codec.decode(arguments[1], TO_AGENT)
    return message.get("command_name") == "shell"
