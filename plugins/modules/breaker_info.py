#!/usr/bin/python
# Copyright: The Hostler developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: breaker_info
short_description: Tell which starts are paused after failures
version_added: 0.1.0
description:
  - Asks the hub for the breakers that are not closed. A breaker pauses the starts of what has failed for several
    workers, such as a host, an image, a daemon, a region, a group or a driver.
  - A breaker is closed by resuming one of its workers (M(hostler.fleet.worker_state) with O(hostler.fleet.worker_state#module:mode=active)),
    on the hub's page, or by the first start that succeeds.
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
- name: Ask which starts are paused
  hostler.fleet.breaker_info:
  register: asked

- name: Say so, and what to do
  ansible.builtin.debug:
    msg: "{{ item.text }}; {{ item.remedy }}"
  loop: "{{ asked.breakers }}"
"""

RETURN = r"""
breakers:
  description: The breakers that are not closed, by failure domain.
  returned: success
  type: list
  elements: dict
  contains:
    state:
      description:
        - "V(open): none is started. V(half-open): one is tried."
      type: str
      returned: always
    domain:
      description:
        - "What has failed for several workers: a host, an image, a daemon, a region, a group, a driver."
      type: str
      returned: always
    failures:
      description: How many starts in a row have failed.
      type: int
      returned: always
    until:
      description: Until when none is started.
      type: str
      returned: always
    error:
      description: What the last start failed of.
      type: str
      returned: always
    text:
      description: That starts are paused, until when and why, in a sentence.
      type: str
      returned: always
    remedy:
      description: What to do, in a sentence.
      type: str
      returned: always
    workers:
      description: The first of the workers that it is about, by name.
      type: list
      elements: str
      returned: always
    workers_count:
      description: How many workers it is about.
      type: int
      returned: always
  sample:
    - domain: host build1:22
      state: open
      failures: 6
      until: "2026-11-30T17:05:10.000Z"
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hostler.fleet.plugins.module_utils import hub


def work(module, client):
    module.exit_json(breakers=client.get("/breakers")["items"])


def main():
    module = AnsibleModule(argument_spec=hub.argument_spec(), supports_check_mode=True)
    hub.run(module, work)


if __name__ == "__main__":
    main()
