#!/usr/bin/python
# Copyright: The Hostler developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: throw_away
short_description: Make the directory of a throw-away fleet, and take the fleet down
version_added: 0.1.0
description:
  - Makes an empty directory for a hub and its local workers that a play starts, tries and removes. For root it is a
    small file system of its own, which may be filled.
  - A process apart from the play takes everything down when the play's process ends without doing so.
  - Taking down ends the workers and the hub, kills what does not end, and removes the directory.
extends_documentation_fragment:
  - hostler.fleet.hub
attributes:
  check_mode:
    support: none
    description: There is nothing to compare.
  diff_mode:
    support: none
    description: There is nothing to compare.
  platform:
    support: full
    platforms: linux
    description: There must be a C(/proc).
options:
  state:
    description: V(present) makes a new directory, V(absent) takes the fleet in O(path) down.
    type: str
    choices: [present, absent]
    default: present
  path:
    description: The directory, as V(present) has returned it. A directory that it did not make is refused.
    type: path
  hub_executable:
    description: The program C(hostler-hub), which stops the hub.
    type: path
    required: true
  size_mb:
    description: The size of the file system in MiB. It is in memory.
    type: int
    default: 96
  deadline_s:
    description: Seconds that workers may take to end.
    type: float
    default: 60
author:
  - The Hostler developers (@hostler)
"""

EXAMPLES = r"""
- name: Make a place for a throw-away fleet
  hostler.fleet.throw_away:
    hub_executable: /opt/hostler/bin/hostler-hub
  register: made

- name: Take the fleet down
  hostler.fleet.throw_away:
    state: absent
    path: "{{ made.path }}"
    hub_executable: /opt/hostler/bin/hostler-hub
"""

RETURN = r"""
path:
  description: The directory.
  returned: success
  type: str
  sample: /tmp/hostler-fire-drill-k2v9x1
state_dir:
  description: The state directory for the hub, in it.
  returned: with O(state=present)
  type: str
  sample: /tmp/hostler-fire-drill-k2v9x1/hub
environment:
  description: The environment to start the hub with, by which its clock can be set.
  returned: with O(state=present)
  type: dict
  sample: {}
left:
  description: Processes that did not end by themselves and were killed.
  returned: with O(state=absent)
  type: list
  elements: dict
  sample: []
"""

import glob
import json
import os
import shutil
import subprocess
import tempfile

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hostler.fleet.plugins.module_utils import (
    dead_mans_switch,
    faults,
    hub,
    processes,
    waiting,
)
from ansible_collections.hostler.fleet.plugins.module_utils.errors import HubError

MARKER = "throw-away.json"
LIBRARIES = (
    "/usr/lib/*/faketime/libfaketimeMT.so.1",
    "/usr/lib*/faketime/libfaketimeMT.so.1",
)


def make(params):
    """Make the directory, marked as ours; returns its path."""
    path = tempfile.mkdtemp(prefix="hostler-fire-drill-")
    if os.geteuid() == 0 and shutil.which("mount"):
        size = "size=%dm,mode=700" % params["size_mb"]
        mount = ["mount", "-t", "tmpfs", "-o", size, "hostler-fire-drill", path]
        subprocess.run(mount, capture_output=True, check=False)  # without: no disk to fill
    with open(os.path.join(path, MARKER), "w", encoding="utf-8") as file:
        json.dump({"made_by": "hostler.fleet.throw_away"}, file)
    return path


def environment(path):
    """Have libfaketime set the hub's clock, where it is installed; see faults.Clock."""
    found = [one for pattern in LIBRARIES for one in sorted(glob.glob(pattern))]
    if not found:
        return {}
    clock = os.path.join(path, "clock")
    faults.write_clock(clock, 0)
    return {
        "LD_PRELOAD": found[0],
        "FAKETIME_TIMESTAMP_FILE": clock,
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DISABLE_SHM": "1",
        "NO_FAKE_STAT": "1",
    }


def is_ours(path):
    return os.path.isfile(os.path.join(path, MARKER))


def take_down(path, params):
    """End workers and hub, kill what is left, remove the directory; returns what had to be killed."""
    # A hub that a drill has killed may just be started again.
    dead_mans_switch.await_undone(faults.lock_of(path))
    state_dir = os.path.join(path, "hub")
    if os.path.exists(os.path.join(state_dir, "hub.json")):
        end_workers(state_dir, params)
        stop = [params["hub_executable"], "stop", "--state-dir", state_dir]
        subprocess.run(stop, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    left = processes.kill_all(path)
    if os.path.ismount(path):
        subprocess.run(["umount", path], capture_output=True, check=True)
    shutil.rmtree(path)
    return left


def end_workers(state_dir, params):
    """Have the hub end them; what it cannot end is killed later, and told."""
    options = dict.fromkeys(("hub_url", "hub_token", "hub_token_file", "hub_ca_file"))
    options.update(hub_state_dir=state_dir, hub_timeout=params["hub_timeout"])
    try:
        client = hub.open_client(options, {}, keep_secret=bool)  # nothing of it is shown
        names = faults.names_of_all(client)
        order = {"names": names, "mode": "stopped", "reason": "fire drill", "dry_run": False}
        client.post("/workers/mode", order)
        waiting.wait_for(client, names, waiting.not_resting, params["deadline_s"])
    except HubError:
        return  # there is no hub that could


def present(module):
    path = make(module.params)
    params = dict(module.params)
    dead_mans_switch.watch_play(
        dead_mans_switch.find_play(os.getpid()),
        lambda: take_down(path, params),
        lambda: not is_ours(path),
    )
    state_dir = os.path.join(path, "hub")
    module.exit_json(changed=True, path=path, state_dir=state_dir, environment=environment(path))


def absent(module):
    path = os.path.realpath(module.params["path"])
    if not os.path.exists(path):
        module.exit_json(changed=False, path=path, left=[])
    if not is_ours(path):
        module.fail_json(msg="path: %s is no directory that state=present has made" % path)
    try:
        left = take_down(path, module.params)
    except (OSError, subprocess.CalledProcessError) as failure:
        module.fail_json(msg="path: %s cannot be removed: %s" % (path, failure))
    module.exit_json(changed=True, path=path, left=left)


def main():
    module = AnsibleModule(
        argument_spec=hub.argument_spec(
            state={"type": "str", "choices": ["present", "absent"], "default": "present"},
            path={"type": "path"},
            hub_executable={"type": "path", "required": True},
            size_mb={"type": "int", "default": 96},
            deadline_s={"type": "float", "default": 60},
        ),
        required_if=[("state", "absent", ["path"])],
    )
    (present if module.params["state"] == "present" else absent)(module)


if __name__ == "__main__":
    main()
