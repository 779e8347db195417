#!/usr/bin/python
# Copyright: The Hostler developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: process_info
short_description: List the processes of this machine that belong to a hub
version_added: 0.1.0
description:
  - Looks through C(/proc) for the hub itself, its agents and what their jobs started, to prove that nothing is left.
  - A process belongs to the hub when it is a hub or an agent whose arguments name the state directory, when its
    arguments carry the hub's mark, when it works below the state directory, or when its environment names one of the
    hub's instances.
  - It asks no hub, so that it also works when there is none any more. The processes of other users are seen by root only.
attributes:
  check_mode:
    support: full
    description: Nothing is changed.
  diff_mode:
    support: none
    description: Nothing is changed.
  platform:
    support: full
    platforms: linux
    description: There must be a C(/proc).
options:
  state_dir:
    description: The hub's state directory.
    type: path
    required: true
  hub_id:
    description: The hub's own id, as its agents carry it in their mark.
    type: str
  instances:
    description: Ids of instances whose processes to find by C(HOSTLER_INSTANCE) in their environment.
    type: list
    elements: str
    default: []
author:
  - The Hostler developers (@hostler)
"""

EXAMPLES = r"""
- name: Prove that nothing is left
  hostler.fleet.process_info:
    state_dir: /var/lib/hostler
  register: left
  failed_when: left.processes | length > 0
"""

RETURN = r"""
processes:
  description: The processes found, by pid.
  returned: success
  type: list
  elements: dict
  contains:
    pid:
      description: The process id.
      type: int
      returned: always
    command:
      description: The first words of its command line.
      type: str
      returned: always
    because:
      description: What shows that it belongs to the hub.
      type: str
      returned: always
  sample: [{pid: 4711, command: hostler-agent run, because: "its arguments carry the mark"}]
"""

import os

from ansible.module_utils.basic import AnsibleModule

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


def own_line(pid):
    """The pids from this process up to the first: who asks is no leftover."""
    line = set()
    while pid > 0 and pid not in line:
        line.add(pid)
        try:
            with open("/proc/%d/stat" % pid, encoding="utf-8", errors="replace") as file:
                # The name in parentheses may hold anything, also spaces and parentheses.
                pid = int(file.read().rpartition(")")[2].split()[1])
        except (OSError, IndexError, ValueError):
            break
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


def main():
    module = AnsibleModule(
        argument_spec={
            "state_dir": {"type": "path", "required": True},
            "hub_id": {"type": "str"},
            "instances": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    if not os.path.isdir("/proc/self"):
        module.fail_json(msg="there is no /proc on this machine, so no process can be looked for")
    params = module.params
    state_dir = os.path.realpath(params["state_dir"])
    module.exit_json(processes=find(state_dir, params["hub_id"], params["instances"]))


if __name__ == "__main__":
    main()
