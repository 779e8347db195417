"""Slots that have a user each, for an agent that is root.

A slot is opened by its first command and ended with its lease (V10): its user is given to another
slot only when nothing of it remains. Where the agent may make namespaces, the slot's jobs have a
view of their own; where it may not, they see the machine as everybody does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable, Optional, TypeVar

assert sys.platform != "win32"

from hostler_agent.commands import removal
from hostler_agent.commands.leftovers import HOMES, SLOTS
from hostler_agent.commands.progress import Progress
from hostler_agent.commands.slots import ownership, remains, view
from hostler_agent.commands.slots.contract import NO_VARIABLES, AgentSlot, Slot, remove_all
from hostler_agent.commands.slots.view import SlotDirectories
from hostler_agent.jobs.errors import UsersUnavailable
from hostler_agent.jobs.plan import BuildUser, View
from hostler_agent.jobs.posix import as_user, namespaces
from hostler_agent.jobs.posix.namespaces import Namespaces
from hostler_agent.jobs.posix.users import UserPool

T = TypeVar("T")

_AGENTS_OWN = frozenset(
    [
        *(
            "DBUS_SESSION_BUS_ADDRESS",
            "GNUPGHOME",
            "KRB5CCNAME",
            "LISTEN_FDS",
            "LISTEN_PID",
            "MAIL",
        ),
        *("NOTIFY_SOCKET", "CREDENTIALS_DIRECTORY", "RUNTIME_DIRECTORY", "STATE_DIRECTORY"),
        *("SSH_AGENT_PID", "SSH_AUTH_SOCK", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"),
        *("XDG_DATA_HOME", "XDG_RUNTIME_DIR", "XDG_SESSION_ID", "XDG_STATE_HOME"),
    ]
)
"""The agent's variables that lead to what belongs to the agent's user."""

log = logging.getLogger(__name__)


@dataclass
class UserSlot:
    """A slot with a user of its own."""

    user: BuildUser
    directories: SlotDirectories
    namespaces: Namespaces
    variables: Mapping[str, str]
    """Those that the agent's owner gives to builds."""
    no_new_privileges: bool
    neighbours: Callable[[], frozenset[int]]
    """The uids of all slots."""
    uses: int = 0
    waiter: Optional[asyncio.Future[None]] = None
    """Set when no command uses the slot any more, if somebody waits for that."""

    @property
    def view(self) -> View:
        return View(namespaces=self.namespaces.descriptors)

    def environment(self, variables: Mapping[str, str]) -> Mapping[str, str]:
        kept = {name: value for name, value in variables.items() if name not in _AGENTS_OWN}
        name, home = self.user.name, self.user.home
        own = {"HOME": home, "USER": name, "LOGNAME": name, "SHELL": "/bin/sh"}
        return {**kept, **own, **self.variables}

    def enter(self) -> None:
        as_user.become(self.user, self.namespaces.descriptors)

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        return await as_user.run_as(self.user, self.namespaces.descriptors, work, *arguments)

    async def claim(self, paths: Sequence[str], *, make: bool = True) -> None:
        base = self.directories.base
        wanted = {found for path in paths if (found := ownership.build_directory(base, path))}
        if wanted:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(None, self._claim, sorted(wanted), make)

    def is_build_directory(self, path: str) -> bool:
        found = ownership.build_directory(self.directories.base, path)
        return found is not None and os.path.normpath(path) == str(found)

    def is_the_agents(self, path: str) -> bool:
        base, whole = self.directories.base, Path(os.path.normpath(path))
        return whole == base or whole.parent in (base, base / ownership.BUILDS)

    def _claim(self, wanted: Sequence[Path], make: bool) -> None:
        for directory in wanted:
            ownership.claim(directory, self.user, self.neighbours() - {self.user.uid}, make=make)


class UserSlots:
    """The slots of an agent that gives each a user of its own."""

    have_users = True

    def __init__(
        self, base: Path, pool: UserPool, variables: Mapping[str, str], *, no_new_privileges: bool
    ) -> None:
        self._base = base
        self._pool = pool
        self._variables = variables
        self._no_new_privileges = no_new_privileges
        self._has_namespaces = namespaces.problem() is None
        self._own = AgentSlot(variables, no_new_privileges=no_new_privileges)
        self._slots: dict[str, asyncio.Future[UserSlot]] = {}
        self._ending: set[int] = set()

    @contextlib.asynccontextmanager
    async def use(self, key: Optional[str]) -> AsyncIterator[Slot]:
        if key is None:
            yield self._own
            return
        slot = await self._opened(key)
        slot.uses += 1
        try:
            yield slot
        finally:
            slot.uses -= 1
            if not slot.uses and slot.waiter is not None:
                slot.waiter.set_result(None)

    async def end(self, key: str, paths: Sequence[str]) -> list[str]:
        loop = asyncio.get_running_loop()
        opened = self._slots.pop(key, None)
        if opened is None:
            return await loop.run_in_executor(None, remove_all, paths)
        slot = await asyncio.shield(opened)
        if slot.uses:
            slot.waiter = loop.create_future()
            await asyncio.shield(slot.waiter)
        self._ending.add(slot.user.uid)
        try:
            left = await loop.run_in_executor(None, self._close, slot, paths)
        finally:
            self._ending.discard(slot.user.uid)
        for text in left:
            log.warning("user %s is not used again: %s stays", slot.user.name, text)
        return left

    async def end_all(self) -> None:
        ends = [self.end(key, ()) for key in list(self._slots)]
        for failure in await asyncio.gather(*ends, return_exceptions=True):
            if isinstance(failure, BaseException):
                log.error("a slot could not be ended: %s", failure)

    async def aclose(self) -> None:
        await self.end_all()
        self._pool.close()

    async def _opened(self, key: str) -> UserSlot:
        opening = self._slots.get(key)
        if opening is None:
            loop = asyncio.get_running_loop()
            opening = loop.run_in_executor(None, self.open)
            self._slots[key] = opening
        try:
            # Shielded: a command that is cancelled does not take the slot from the next one.
            return await asyncio.shield(opening)
        except Exception:
            if self._slots.get(key) is opening:
                del self._slots[key]
            raise

    def open(self) -> UserSlot:
        """Open a slot; for use in a thread. Raises NoUserFree or OSError."""
        user = self._pool.acquire()
        directories = SlotDirectories(
            base=self._base,
            own=self._base / SLOTS / user.name,
            home=self._base / HOMES / user.name,
            # By the uid, which is no other agent's meanwhile, as the name may be.
            shm=view.MEMORY / f"hostler-{user.uid}",
        )
        try:
            _clear_old(directories, user)
            user = replace(user, home=str(directories.home))
            view.make_directories(directories, user)
            ownership.make(directories.home, user)
            made = self._make_namespaces(directories)
        except BaseException:
            self._pool.release(user)
            raise
        return UserSlot(
            user, directories, made, self._variables, self._no_new_privileges, self._uids
        )

    def _make_namespaces(self, directories: SlotDirectories) -> Namespaces:
        if not self._has_namespaces:
            return Namespaces(())
        return Namespaces.make(lambda: view.arrange(directories))

    def _close(self, slot: UserSlot, paths: Sequence[str]) -> list[str]:
        slot.namespaces.close()
        left = [*remains.clear(slot.user), *remove_all(paths), *_remove(slot.directories)]
        if not left:
            self._pool.release(slot.user)
        return left

    def _uids(self) -> frozenset[int]:
        slots = [each.result() for each in self._slots.values() if _has_opened(each)]
        return frozenset({*self._ending, *(slot.user.uid for slot in slots)})


def make(
    base: Path,
    pool: UserPool,
    variables: Mapping[str, str] = NO_VARIABLES,
    *,
    no_new_privileges: bool,
) -> UserSlots:
    """Make the slots, and open one for a trial. Raises UsersUnavailable or OSError; then nothing of
    it is left.
    """
    base.mkdir(parents=True, exist_ok=True)
    for directory, mode in ((base, 0o755), (base / "builds", 0o711), (base / HOMES, 0o711)):
        directory.mkdir(exist_ok=True)
        directory.chmod(mode)
    for directory in ((base / SLOTS).parent, base / SLOTS):
        directory.mkdir(mode=0o700, exist_ok=True)
        directory.chmod(0o700)
    slots = UserSlots(base, pool, variables, no_new_privileges=no_new_privileges)
    slot = slots.open()
    try:
        _try(slot)
    finally:
        left = slots._close(slot, ())  # noqa: SLF001 - of this module
    if left:
        raise UsersUnavailable(f"{', '.join(left)} cannot be removed")
    return slots


def _try(slot: UserSlot) -> None:
    """Raise UsersUnavailable unless a job of the slot can reach its directories."""
    look = as_user.start_as(
        slot.user, slot.namespaces.descriptors, os.listdir, str(slot.directories.home)
    )
    try:
        look.result()
    except OSError as error:
        raise UsersUnavailable(
            f"{slot.user.name} cannot reach {slot.directories.base} ({error}); where the agent may "
            "make no mount namespaces, everybody must be able to enter the directories above it"
        ) from error


def _clear_old(directories: SlotDirectories, user: BuildUser) -> None:
    """Remove what an agent that was killed has left of the user."""
    left = [*remains.clear(user), *_remove(directories)]
    if left:
        raise OSError(f"{user.name} has left {', '.join(left)}")


def _remove(directories: SlotDirectories) -> list[str]:
    progress = Progress()
    places = (directories.own, directories.home, directories.shm)
    failures = [failure for place in places for failure in removal.remove(str(place), progress)]
    return [f"{failure.filename}: {failure.strerror}" for failure in failures]


def _has_opened(opening: asyncio.Future[UserSlot]) -> bool:
    return opening.done() and not opening.cancelled() and opening.exception() is None
