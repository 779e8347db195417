"""The hub's own machine: the agent's `host` actions run inside the hub, each in a thread.

A process for each action would take longer than the rest of a start. So the hub is the parent of
the agents that it starts, and reaps those that end while it runs; agents of an earlier hub are
children of init. All agents live in sessions of their own, and outlive the hub.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from hostler_agent.instances import actions
from hostler_agent.instances.launch import Program
from hostler_hub.drivers.errors import HostFailed
from hostler_hub.drivers.hosts.host import Host, Site, checked

THREADS = 16


class Children:
    """Reaps the agents that this process started; without it they would stay zombies while the hub
    runs.
    """

    def __init__(self) -> None:
        self._watched: set[int] = set()

    def watch(self, pid: int) -> None:
        """Reap this process when it ends. A process that is not a child of ours is left alone."""
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        self._watched.add(pidfd)
        asyncio.get_running_loop().add_reader(pidfd, self._reap, pid, pidfd)

    def close(self) -> None:
        """Stop watching. The processes keep running."""
        for pidfd in list(self._watched):
            self._forget(pidfd)

    def _reap(self, pid: int, pidfd: int) -> None:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        self._forget(pidfd)

    def _forget(self, pidfd: int) -> None:
        self._watched.discard(pidfd)
        asyncio.get_running_loop().remove_reader(pidfd)
        os.close(pidfd)


class LocalHost(Host):
    """This machine. `call` raises HostFailed."""

    def __init__(self, site: Site, threads: ThreadPoolExecutor, children: Children) -> None:
        self._site = site
        self._threads = threads
        self._children = children

    async def call(
        self,
        action: str,
        request: Mapping[str, Any],
        deadline_s: float,
        sending: Callable[[], None] | None = None,
    ) -> Mapping[str, Any]:
        """Carry out the action in a thread and return its reply. After `deadline_s` HostFailed is
        raised, while the thread goes on to the action's end.
        """
        # Only a start needs the owner's interpreter: an instance can be ended without it.
        python = self._site.python if action == "start" else sys.executable
        program = Program.installed(python)
        content = {"directory": self._site.directory, **request}
        if sending is not None:
            sending()
        act = partial(actions.perform, action, content, program)
        done = asyncio.get_running_loop().run_in_executor(self._threads, act)
        if action == "start":
            done.add_done_callback(self._watch)
        try:
            async with asyncio.timeout(deadline_s):
                return checked(await asyncio.shield(done))
        except TimeoutError:
            raise HostFailed(f"{action} did not end within {deadline_s:g} s") from None

    def _watch(self, done: asyncio.Future[dict[str, Any]]) -> None:
        process = {} if done.cancelled() else done.result().get("process", {})
        if process:
            self._children.watch(process["pid"])
