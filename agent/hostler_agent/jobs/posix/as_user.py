"""Work on files in a thread that has a build user's rights, and no others.

A build chooses what is in its workspace, and links in it may lead anywhere. So the agent touches
that only as the build's user and in the build's own view of the file system, and is led nowhere
that the build itself could not go. Only the file system's ids are changed (setfsuid), which file
servers have for this: a build can neither signal such a thread nor trace it.

The thread is never used again: it has no right to take its rights back.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, Callable, TypeVar

assert sys.platform != "win32"

from hostler_agent.jobs.plan import BuildUser
from hostler_agent.jobs.posix import libc

T = TypeVar("T")


def become(user: BuildUser, namespaces: Sequence[int]) -> None:
    """Change the calling thread. It must not be the main one, nor be used for anything else later.

    `namespaces` are descriptors of the build's own. Raises OSError.
    """
    assert threading.current_thread() is not threading.main_thread()
    if namespaces:
        # One of mounts is for those alone who share no directory. Docker forbids the call where it
        # forbids the namespaces.
        libc.unshare(libc.CLONE_FS)
    for namespace in namespaces:
        libc.set_namespace(namespace)
    libc.set_groups((user.gid, *user.groups))
    libc.set_file_ids(user.uid, user.gid)
    libc.drop_capabilities()


async def run_as(
    user: BuildUser, namespaces: Sequence[int], work: Callable[..., T], *arguments: Any
) -> T:
    """Run `work(*arguments)` in a thread of its own with the user's rights. Raises what it raises.

    If this call is cancelled, the thread goes on.
    """
    return await asyncio.wrap_future(start_as(user, namespaces, work, *arguments))


def start_as(
    user: BuildUser, namespaces: Sequence[int], work: Callable[..., T], *arguments: Any
) -> Future[T]:
    """Start what run_as() runs, and return its outcome to come."""
    done: Future[T] = Future()

    def run() -> None:
        if not done.set_running_or_notify_cancel():
            return
        try:
            become(user, namespaces)
            result = work(*arguments)
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            done.set_exception(error)
        else:
            done.set_result(result)

    threading.Thread(target=run, name=f"files of {user.name}", daemon=True).start()
    return done
