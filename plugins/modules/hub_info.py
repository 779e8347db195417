#!/usr/bin/python
# Copyright: The Hostler developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: hub_info
short_description: Tell how the hub itself is
version_added: 0.3.0
description:
  - Asks the hub whether it can accept builds now and, if not, why; whether it is in hold after a restore; and for the
    counts of its workers, builds and incidents.
extends_documentation_fragment:
  - hostler.fleet.hub
attributes:
  check_mode:
    support: full
    description: Nothing is changed.
  diff_mode:
    support: none
    description: Nothing is changed.
author:
  - The Hostler developers (@hostler)
"""

EXAMPLES = r"""
- name: Ask how the hub is
  hostler.fleet.hub_info:
  register: answer

- name: Stop here unless it can accept builds
  ansible.builtin.assert:
    that: answer.hub.not_ready is none
    fail_msg: "{{ answer.hub.not_ready }}"
"""

RETURN = r"""
hub:
  description: The hub at a glance.
  returned: success
  type: dict
  contains:
    version:
      description: The hub's version.
      type: str
      returned: always
    hub:
      description: The hub's id, made once per database.
      type: str
      returned: always
    hold:
      description:
        - Why the hub starts and destroys nothing until that is confirmed, as after a restore; null if it is in no
          hold.
      type: str
      returned: always
    not_ready:
      description: Why the hub can accept nothing now, as it could not keep it; null if it can.
      type: str
      returned: always
    workers:
      description: How many workers are how.
      type: dict
      returned: always
    builds:
      description: How many builds are under way.
      type: dict
      returned: always
    incidents:
      description: How many incidents are not over.
      type: dict
      returned: always
    storage:
      description: What submitters use of the hub's disk.
      type: dict
      returned: always
  sample: {version: 0.1.0, hub: 01K8Z9Q8Y3N6V4T2R0P9M7K5J3, hold: null, not_ready: null}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hostler.fleet.plugins.module_utils import hub


def work(module, client):
    module.exit_json(hub=client.get("/status"))


def main():
    module = AnsibleModule(argument_spec=hub.argument_spec(), supports_check_mode=True)
    hub.run(module, work)


if __name__ == "__main__":
    main()
