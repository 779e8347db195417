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
from ansible_collections.hostler.fleet.plugins.module_utils.processes import find


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
