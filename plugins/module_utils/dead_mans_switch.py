# Copyright: The Hostler developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Harm that is undone even if those who did it die: a process of its own waits for that.

The process that undoes is forked before the harm is done, leaves the session (Ctrl-C does not reach
it), holds no file of its parent's, and undoes when the first of these happens: the `with` ends, the
module dies, the play's own process ends, or the time is over. So each orderly end goes the same way
as a broken one.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import time

from ansible_collections.hostler.fleet.plugins.module_utils import processes

LOOK_EVERY_S = 0.2
PLAYS = ("ansible-playbook", "ansible-runner", "ansible-navigator", "ansible")


class NotUndone(Exception):
    pass


def find_play(pid):
    """The process of the play that runs this module, as (pid, start time); None outside of a play.

    Workers of a play are forks of it and named as it is, so it is the highest of a row of them.
    """
    found = None
    for one in processes.own_line(pid)[1:]:
        if any(os.path.basename(word) in PLAYS for word in processes.read(one, "cmdline")[:3]):
            found = one
    return found and (found, processes.start_time(found))


def lives(process):
    """Whether the process (pid, start time) still runs; None counts as one that does."""
    return process is None or processes.start_time(process[0]) == process[1]


class DeadMansSwitch(object):
    """`with DeadMansSwitch(undo, limit_s, play): harm`. undo() may be called when nothing was done.

    play is what find_play() has found. The file `lock` is locked until undo() is over, for await_undone().
    Leaving raises NotUndone when undo() has raised.
    """

    def __init__(self, undo, limit_s, play=None, lock=None):
        self._lock = lock
        self._undo = undo
        self._limit_s = limit_s
        self._play = play
        self._pid = None
        self._alive = None

    def __enter__(self):
        theirs, self._alive = os.pipe()
        keep = [theirs]
        if self._lock is not None:
            # The lock is the open file's: the child holds it when we have closed ours.
            keep.append(os.open(self._lock, os.O_RDWR | os.O_CREAT, 0o600))
            fcntl.flock(keep[1], fcntl.LOCK_SH)
        parent = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            run_detached(lambda: self._wait(theirs, parent), keep)
        for number in keep:
            os.close(number)
        return self

    def __exit__(self, *error):
        os.close(self._alive)
        code = os.waitpid(self._pid, 0)[1]
        if code != 0:
            raise NotUndone("what the drill did could not be undone (status %d)" % code)

    def _wait(self, pipe, parent):
        end = time.monotonic() + self._limit_s
        while time.monotonic() < end and lives(self._play):
            if select.select([pipe], [], [], LOOK_EVERY_S)[0]:
                break  # nothing is ever written: the other end was closed
        self._undo()
        if not lives(self._play) and os.getppid() == parent:
            os.kill(parent, signal.SIGTERM)


def await_undone(lock):
    """Wait until no switch with this lock has anything to undo any more."""
    with open(lock, "a", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)


def watch_play(play, undo, is_over):
    """Fork a process that calls undo() when the play's process ends before is_over() is true."""

    def wait():
        while lives(play):
            if is_over():
                return
            time.sleep(LOOK_EVERY_S)
        undo()

    if play is not None and os.fork() == 0:
        run_detached(wait)


def run_detached(work, keep=()):
    """In a forked child: call work() apart from the parent's session and files, and end."""
    code = 1
    try:
        os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        os.chdir("/")
        detach_files(keep)
        work()
        code = 0
    finally:
        os._exit(code)


def detach_files(keep):
    """Close every file but those of keep, and read and write nothing: who waits for our output would wait."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in keep:
            try:
                os.close(int(name))
            except OSError:
                continue  # the one by which we listed them
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        if number != null and number not in keep:
            os.dup2(null, number)
