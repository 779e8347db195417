#!/usr/bin/python
# Copyright: The Hostler developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: incident
short_description: Add to what is known of an incident, or say that it is over
version_added: 0.1.0
description:
  - Adds texts to the evidence of an open incident. Whoever was told of the incident is told of them, once.
  - Most incidents end by themselves; O(state=closed) is for the others.
extends_documentation_fragment:
  - hostler.fleet.hub
attributes:
  check_mode:
    support: full
    description: Nothing is changed.
  diff_mode:
    support: full
    description: The evidence before and after.
options:
  state:
    description:
      - V(noted) adds O(evidence).
      - V(closed) adds it where it is given, then closes the incident.
    type: str
    choices: [noted, closed]
    default: noted
  id:
    description: The incident.
    type: str
  worker:
    description: The worker whose open incident it is, instead of O(id). Where there is none, nothing is done.
    type: str
  kind:
    description: With O(worker), what kind of incident.
    type: str
    default: missing
  evidence:
    description: Texts by name, such as C(tried). A name that was used before is replaced.
    type: dict
    default: {}
  tell:
    description: Whether those are told who know of the incident.
    type: bool
    default: true
  reason:
    description: Why it is over.
    type: str
seealso:
  - module: hostler.fleet.incident_info
author:
  - The Hostler developers (@hostler)
"""

EXAMPLES = r"""
- name: Say what was tried
  hostler.fleet.incident:
    worker: mac-1
    evidence:
      tried: |
        ping: the machine answers
        restart: the agent does not come back
"""

RETURN = r"""
incident:
  description: The incident as the hub tells it, or null where there is none.
  returned: always
  type: dict
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
      returned: always
  sample: {id: 01JD0000000000000000000000, worker: mac-1, kind: missing, open: true, notification: sent}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hostler.fleet.plugins.module_utils import hub


def find(client, params):
    """The incident that is meant, or None."""
    if params["id"]:
        return client.get("/incidents/" + params["id"])
    query = {"worker": params["worker"], "kind": params["kind"], "open": "true", "limit": 1}
    items = client.get("/incidents", query)["items"]
    return items[0] if items else None


def lines(evidence):
    return "".join("%s: %s\n" % (name, evidence[name]) for name in sorted(evidence))


def work(module, client):
    params = module.params
    incident = find(client, params)
    if incident is None:
        module.exit_json(changed=False, incident=None)
    texts = {name: str(text) for name, text in params["evidence"].items()}
    known = incident["evidence"]
    news = any(known.get(name) != text for name, text in texts.items())
    closes = params["state"] == "closed" and incident["open"]
    path = "/incidents/" + incident["id"]
    if news and not module.check_mode:
        incident = client.post(path + "/evidence", {"evidence": texts, "tell": params["tell"]})
    if closes and not module.check_mode:
        incident = client.post(path + "/close", {"reason": params["reason"]})
    answer = {"changed": news or closes, "incident": incident}
    if module._diff:  # noqa: SLF001  (Ansible has no other way to ask)
        answer["diff"] = {"before": lines(known), "after": lines(dict(known, **texts))}
    module.exit_json(**answer)


def main():
    module = AnsibleModule(
        argument_spec=hub.argument_spec(
            state={"type": "str", "choices": ["noted", "closed"], "default": "noted"},
            id={"type": "str"},
            worker={"type": "str"},
            kind={"type": "str", "default": "missing"},
            evidence={"type": "dict", "default": {}},
            tell={"type": "bool", "default": True},
            reason={"type": "str"},
        ),
        mutually_exclusive=[("id", "worker")],
        required_one_of=[("id", "worker")],
        supports_check_mode=True,
    )
    hub.run(module, work)


if __name__ == "__main__":
    main()
