#!/usr/bin/python
# Copyright: The Hostler developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: group_info
short_description: Tell what groups of workers there are and how they are
version_added: 0.1.0
description:
  - Asks the hub for its groups, those defined and those that only workers name.
extends_documentation_fragment:
  - hostler.fleet.hub
attributes:
  check_mode:
    support: full
    description: Nothing is changed.
  diff_mode:
    support: none
    description: Nothing is changed.
options:
  names:
    description: Only these groups. Those the hub does not know are listed in RV(unknown).
    type: list
    elements: str
    aliases: [name]
author:
  - The Hostler developers (@hostler)
"""

EXAMPLES = r"""
- name: Ask how a group is
  hostler.fleet.group_info:
    name: docker
  register: asked

- name: Say why no more of it is started
  ansible.builtin.debug:
    msg: "{{ asked.groups[0].startable.why }}"
"""

RETURN = r"""
groups:
  description: The groups by name.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The group's name.
      type: str
      returned: always
    definition:
      description: What its owner defined; none where only workers name it.
      type: dict
      returned: always
    now:
      description: The numbers that hold now, by which schedule, and until when at least.
      type: dict
      returned: always
    workers:
      description: How many workers are of it.
      type: int
      returned: always
    instances:
      description: How many instances it has that are not proven gone.
      type: int
      returned: always
    starting:
      description: How many of them are starting.
      type: int
      returned: always
    up:
      description: How many of them are up.
      type: int
      returned: always
    idle:
      description: How many of them are up and idle.
      type: int
      returned: always
    stopping:
      description: How many of them are being stopped.
      type: int
      returned: always
    lost:
      description: How many of them have lost their agent.
      type: int
      returned: always
    leases:
      description: How many builds run on it.
      type: int
      returned: always
    starts_last_minute:
      description: How many starts there were in the last minute.
      type: int
      returned: always
    startable:
      description: How many may be started now, none for any number, and why no more.
      type: dict
      returned: always
    breaker:
      description:
        - "Whether workers are started at all after failures: the group's breaker or, if that is closed, an open one
          of its workers' hosts, images and so on."
      type: dict
      returned: always
    held_since:
      description: Since when lost workers are waited for, as most of the group was lost at once.
      type: str
      returned: always
  sample: [{name: docker, workers: 20, instances: 3, idle: 2}]
unknown:
  description: Names of O(names) that the hub does not know.
  returned: success
  type: list
  elements: str
  sample: []
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hostler.fleet.plugins.module_utils import hub


def work(module, client):
    groups = client.get("/groups")["items"]
    names = module.params["names"]
    if names is None:
        module.exit_json(groups=groups, unknown=[])
    known = {one["name"]: one for one in groups}
    names = list(dict.fromkeys(names))
    module.exit_json(
        groups=[known[name] for name in names if name in known],
        unknown=[name for name in names if name not in known],
    )


def main():
    module = AnsibleModule(
        argument_spec=hub.argument_spec(
            names={"type": "list", "elements": "str", "aliases": ["name"]},
        ),
        supports_check_mode=True,
    )
    hub.run(module, work)


if __name__ == "__main__":
    main()
