"""What a slot is to the commands that run in it, and the slots of an agent without build users.

A slot is one of a worker's places for builds. With isolation `user` it has an operating-system user
of its own, and what commands do to files is done as that user.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Callable, Optional, Protocol, TypeVar

from hostler_agent.commands import removal
from hostler_agent.commands.progress import Progress
from hostler_agent.jobs.plan import BuildUser, View

T = TypeVar("T")


class Slot(Protocol):
    @property
    def user(self) -> Optional[BuildUser]:
        """The user of the slot's jobs; None is the agent's own."""

    @property
    def view(self) -> View:
        """What the slot's jobs see of the machine's files."""

    @property
    def no_new_privileges(self) -> bool: ...

    def environment(self, variables: Mapping[str, str]) -> Mapping[str, str]:
        """The agent's environment as the slot's jobs have it."""

    def enter(self) -> None:
        """Give the calling thread the rights of the slot's jobs. The thread must not be used for
        anything else afterwards.
        """

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """Run `work(*arguments)` in a thread with the rights of the slot's jobs."""

    async def claim(self, paths: Sequence[str], *, make: bool = True) -> None:
        """Have the build directories that these absolute paths lead into belong to the slot, and
        make them if there are none. Raises OSError.
        """

    def is_build_directory(self, path: str) -> bool:
        """Whether the path is a build directory itself, which lies in the agent's own."""

    def is_the_agents(self, path: str) -> bool:
        """Whether the path lies in one of the agent's own directories, as build directories do."""


class Slots(Protocol):
    """The slots of an agent. They are found by a key: the lease, or what a stock master has."""

    @property
    def have_users(self) -> bool:
        """Whether each slot has a user of its own."""

    def use(self, key: Optional[str]) -> AbstractAsyncContextManager[Slot]:
        """The slot of that key for one command; the first use gives it a user. Without a key it is
        the agent's own. Raises JobError or OSError.
        """

    async def end(self, key: str, paths: Sequence[str]) -> list[str]:
        """End the slot of that key when no command uses it: remove the build directories `paths`,
        and whatever else is left of its build. Returns what could not be removed, one text for
        each; then its user is not used again.
        """

    async def end_all(self) -> None:
        """End all slots that there are now."""

    async def aclose(self) -> None: ...


class AgentSlot:
    """A slot whose jobs run as the agent's own user."""

    user: Optional[BuildUser] = None
    view = View()

    def __init__(self, *, no_new_privileges: bool = False) -> None:
        self.no_new_privileges = no_new_privileges

    def environment(self, variables: Mapping[str, str]) -> Mapping[str, str]:
        return variables

    def enter(self) -> None:
        """Do nothing: the thread has the same rights."""

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(None, work, *arguments)

    async def claim(self, paths: Sequence[str], *, make: bool = True) -> None:
        """Do nothing: all directories are the agent's."""

    def is_build_directory(self, path: str) -> bool:
        del path
        return False

    def is_the_agents(self, path: str) -> bool:
        del path
        return False


class AgentSlots:
    """The slots of an agent whose builds run as its own user."""

    have_users = False

    def __init__(self, *, no_new_privileges: bool = False) -> None:
        self._slot = AgentSlot(no_new_privileges=no_new_privileges)

    @contextlib.asynccontextmanager
    async def use(self, key: Optional[str]) -> AsyncIterator[Slot]:
        del key
        yield self._slot

    async def end(self, key: str, paths: Sequence[str]) -> list[str]:
        del key
        return await self._slot.run(remove_all, paths)

    async def end_all(self) -> None:
        """Do nothing: what the jobs left cannot be told from what is the agent's."""

    async def aclose(self) -> None:
        """Do nothing: see end_all."""


def remove_all(paths: Sequence[str]) -> list[str]:
    """Remove trees; for use in a thread. Returns what could not be removed, one text for each."""
    progress = Progress(max_time_s=100.0)
    failures = [failure for path in paths for failure in removal.remove(path, progress)]
    return [f"{failure.filename}: {failure.strerror}" for failure in failures]
