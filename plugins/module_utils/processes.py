# Copyright: The Hostler developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The processes of this machine that belong to a hub: itself, its agents and what their jobs started."""

from __future__ import annotations

import contextlib
import os
import signal
import time

COMMAND_CHARACTERS = 80
# Somebody who only reads the hub's log is no leftover, whatever their arguments name.
PROGRAMS = ("hostler-hub", "hostler-agent", "agent.pyz", "hostler_hub", "hostler_agent")


def read(pid, name):
    """What /proc tells of a process, as a list of strings; empty when it is gone or not ours to see."""
    try:
        with open("/proc/%d/%s" % (pid, name), "rb") as file:
            return file.read().decode("utf-8", errors="replace").split("\0")
    except OSError:
        return []


def workdir(pid):
    try:
        return os.readlink("/proc/%d/cwd" % pid)
    except OSError:
        return ""


def names_directory(arguments, directory):
    """Whether a hub's or an agent's arguments name the directory or something in it."""
    if not any(os.path.basename(one).partition(".cli")[0] in PROGRAMS for one in arguments):
        return False
    paths = [one.rpartition("=")[2] for one in arguments]
    return any(path == directory or path.startswith(directory + os.sep) for path in paths)


def stat(pid):
    """The fields of a process's stat that follow its name, from its state on; empty when it is gone."""
    try:
        with open("/proc/%d/stat" % pid, encoding="utf-8", errors="replace") as file:
            # The name in parentheses may hold anything, also spaces and parentheses.
            return file.read().rpartition(")")[2].split()
    except OSError:
        return []


def start_time(pid):
    """When the process started, in ticks since boot: with the pid it names one process for good. None
    when it has ended, also while it waits to be reaped.
    """
    fields = stat(pid)
    return int(fields[19]) if len(fields) > 19 and fields[0] not in "ZX" else None


def own_line(pid):
    """The pids from this process up to the first, in this order: who asks is no leftover."""
    line = []
    while pid > 0 and pid not in line:
        line.append(pid)
        fields = stat(pid)
        pid = int(fields[1]) if len(fields) > 1 else 0
    return line


def because(pid, state_dir, hub_id, instances):
    """Why the process belongs to the hub, or None when it does not."""
    arguments = read(pid, "cmdline")
    if hub_id and any(one.startswith(hub_id + ":") for one in arguments):
        return "its arguments carry the hub's mark"
    if names_directory(arguments, state_dir):
        return "its arguments name the state directory"
    if workdir(pid).startswith(state_dir + os.sep):
        return "it works below the state directory"
    marks = {"HOSTLER_INSTANCE=" + one for one in instances}
    if marks.intersection(read(pid, "environ") if marks else ()):
        return "its environment names an instance"
    return None


def find(state_dir, hub_id, instances):
    """The hub's processes, without those who ask."""
    mine = own_line(os.getpid())
    found = []
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        reason = None if pid in mine else because(pid, state_dir, hub_id, instances)
        if reason:
            command = " ".join(read(pid, "cmdline")).strip()[:COMMAND_CHARACTERS]
            found.append({"pid": pid, "command": command, "because": reason})
    return found


def kill_all(directory, deadline_s=30):
    """Kill every process that belongs to the directory, until none is left; returns those that were
    found first. Who still starts some is found at the next look.
    """
    end = time.monotonic() + deadline_s
    first = left = find(directory, None, [])
    while left and time.monotonic() < end:
        for one in left:
            with contextlib.suppress(ProcessLookupError):  # it may have ended while we looked
                os.kill(one["pid"], signal.SIGKILL)
        time.sleep(0.05)
        left = find(directory, None, [])
    return first
