#!/usr/bin/python
# Copyright: The Hostler developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: decision_info
short_description: Tell what the hub decided, and why
version_added: 0.1.0
description:
  - Asks the hub for its log of decisions, the newest first. Each start, stop, match and quarantine is there, and what
    was possible and was not done, with the rule and the numbers it was decided on.
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
  worker:
    description: Only decisions about this worker.
    type: str
  build:
    description: Only decisions about the build of this id.
    type: str
  group:
    description: Only decisions about workers of this group, or about the group itself.
    type: str
  kind:
    description: Only decisions of this kind.
    type: str
    choices: [start, stop, match, skip, quarantine, breaker, hold]
  since:
    description: Only decisions of this instant or later, such as V(2026-01-02T03:04:05Z).
    type: str
  limit:
    description: How many decisions at most, the newest first.
    type: int
    default: 50
author:
  - The Hostler developers (@hostler)
"""

EXAMPLES = r"""
- name: Ask why a worker was started and stopped
  hostler.fleet.decision_info:
    worker: docker-3
  register: log

- name: Show it
  ansible.builtin.debug:
    msg: "{{ log.decisions | hostler.fleet.table(['at', 'kind', 'rule', 'text']) }}"

- name: Ask what was skipped in the last hour
  hostler.fleet.decision_info:
    kind: skip
    since: "{{ '%Y-%m-%dT%H:%M:%SZ' | strftime(now().timestamp() - 3600, utc=true) }}"
"""

RETURN = r"""
decisions:
  description: The decisions, the newest first.
  returned: success
  type: list
  elements: dict
  contains:
    id:
      description: Its number; later ones are higher.
      type: int
      returned: always
    at:
      description: When, in UTC.
      type: str
      returned: always
    kind:
      description: V(start), V(stop), V(match), V(skip), V(quarantine), V(breaker) or V(hold).
      type: str
      returned: always
    rule:
      description: By which rule, in a fixed word such as C(idle) or C(max_instances).
      type: str
      returned: always
    text:
      description: Why, for people.
      type: str
      returned: always
    worker:
      description: The worker it is about.
      type: str
      returned: always
    build:
      description: The build it is about.
      type: str
      returned: always
    group:
      description: The group it is about.
      type: str
      returned: always
    numbers:
      description: What it was decided on.
      type: dict
      returned: always
  sample:
    - {id: 7, at: "2026-01-02T03:04:05.678Z", kind: stop, rule: idle, worker: docker-3, numbers: {build_wait_timeout_s: 600}}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hostler.fleet.plugins.module_utils import hub, paging

FILTERS = ("worker", "build", "group", "kind", "since")


def work(module, client):
    params = module.params
    query = {key: params[key] for key in FILTERS if params[key] is not None}
    decisions = paging.newest(module, client, "/decisions", query, params["limit"])
    module.exit_json(decisions=decisions)


def main():
    module = AnsibleModule(
        argument_spec=hub.argument_spec(
            worker={"type": "str"},
            build={"type": "str"},
            group={"type": "str"},
            kind={
                "type": "str",
                "choices": ["start", "stop", "match", "skip", "quarantine", "breaker", "hold"],
            },
            since={"type": "str"},
            limit={"type": "int", "default": 50},
        ),
        supports_check_mode=True,
    )
    hub.run(module, work)


if __name__ == "__main__":
    main()
