#!/usr/bin/python
# Copyright: The Hostler developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: incident_info
short_description: Tell what went wrong with workers, and whether people know
version_added: 0.1.0
description:
  - Asks the hub for its incidents, newest first. A worker that is missing, an instance that cannot be stopped and a
    token that was used twice are each one.
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
  id:
    description: Only this incident, with its deliveries.
    type: str
  open:
    description: Only incidents that are not over, or with V(false) only those that are.
    type: bool
  worker:
    description: Only incidents of this worker.
    type: str
  kind:
    description: Only incidents of this kind, such as V(missing), V(stop_failed) or V(compromised).
    type: str
  limit:
    description: How many incidents at most.
    type: int
    default: 50
author:
  - The Hostler developers (@hostler)
"""

EXAMPLES = r"""
- name: Ask for what is wrong now
  hostler.fleet.incident_info:
    open: true
  register: wrong

- name: Say so
  ansible.builtin.debug:
    msg: "{{ item.worker }} since {{ item.opened_at }}: {{ item.reason }} (people know: {{ item.notification }})"
  loop: "{{ wrong.incidents }}"
  loop_control:
    label: "{{ item.id }}"
"""

RETURN = r"""
incidents:
  description: The incidents, the newest first.
  returned: success
  type: list
  elements: dict
  contains:
    id:
      description: The incident's id.
      type: str
      returned: always
    worker:
      description: The worker it happened to.
      type: str
      returned: always
    kind:
      description: What it is, such as C(missing), C(stop_failed) or C(compromised).
      type: str
      returned: always
    instance:
      description: The id of the instance it happened to.
      type: str
      returned: always
    open:
      description: Whether it is not over yet.
      type: bool
      returned: always
    opened_at:
      description: When it began.
      type: str
      returned: always
    closed_at:
      description: When it was over, or none.
      type: str
      returned: always
    reason:
      description: Why, in a sentence.
      type: str
      returned: always
    close_reason:
      description: Why it was over.
      type: str
      returned: always
    evidence:
      description: What was known of the worker when it began, and what was noted since.
      type: dict
      returned: always
    notification:
      description: V(sent), V(pending), V(failed) when somebody was given up, V(none) when nobody is told.
      type: str
      returned: always
    deliveries:
      description: Each message to each recipient with its state and its last error.
      type: list
      elements: dict
      returned: with O(id)
  sample: [{id: 01JD0000000000000000000000, worker: docker-07, kind: missing, open: true, notification: sent}]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hostler.fleet.plugins.module_utils import hub

PAGE = 500


def pages(client, query, limit):
    """The newest incidents, at most limit of them."""
    incidents = []
    while len(incidents) < limit:
        query["limit"] = min(PAGE, limit - len(incidents))
        page = client.get("/incidents", query)
        incidents.extend(page["items"])
        if not page["next"]:
            break
        query["after"] = page["next"]
    return incidents


def work(module, client):
    params = module.params
    if params["limit"] < 1:
        module.fail_json(msg="limit: %d is no count; give 1 or more" % params["limit"])
    if params["id"]:
        module.exit_json(incidents=[client.get("/incidents/" + params["id"])])
    query = {key: params[key] for key in ("worker", "kind") if params[key]}
    if params["open"] is not None:
        query["open"] = "true" if params["open"] else "false"
    module.exit_json(incidents=pages(client, query, params["limit"]))


def main():
    module = AnsibleModule(
        argument_spec=hub.argument_spec(
            id={"type": "str"},
            open={"type": "bool"},
            worker={"type": "str"},
            kind={"type": "str"},
            limit={"type": "int", "default": 50},
        ),
        mutually_exclusive=[("id", "open"), ("id", "worker"), ("id", "kind")],
        supports_check_mode=True,
    )
    hub.run(module, work)


if __name__ == "__main__":
    main()
