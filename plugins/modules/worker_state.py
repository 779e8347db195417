#!/usr/bin/python
# Copyright: The Hostler developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: worker_state
short_description: Pause, resume, drain or stop build workers
version_added: 0.1.0
description:
  - Sets what an operator wants of workers, one or a thousand in one call.
  - The hub keeps who did it (the token's name), when, why and until when, and shows it wherever the worker is shown.
extends_documentation_fragment:
  - hostler.fleet.hub
  - hostler.fleet.select
attributes:
  check_mode:
    support: full
    description: The hub itself says what would change.
  diff_mode:
    support: full
    description: The mode before and after, for each worker that changes.
options:
  names:
    description: The workers. Give this or O(select).
    type: list
    elements: str
    aliases: [name]
  mode:
    description:
      - V(active) takes builds. It ends a quarantine too, whose doubling is kept until a build finishes.
      - V(paused) takes no new builds; what runs goes on and the instance stays for its time.
      - V(draining) takes no new builds, finishes what runs, then ends its instance.
      - V(stopped) ends its instance now; what runs is retried elsewhere.
    type: str
    choices: [active, paused, draining, stopped]
    required: true
  reason:
    description: Why, for the people who wonder later.
    type: str
  until:
    description:
      - When the worker is to be V(active) again, also if the hub was restarted meanwhile. Without it, when somebody
        says so.
      - An instant with its time zone, such as V(2026-11-21T18:00:00+01:00), or a time from now, such as V(90m) (with
        C(s), C(m), C(h) or C(d)). A time from now begins again, and so is a change, whenever it is given.
    type: str
  wait:
    description:
      - For V(draining) and V(stopped), wait until no build is left and the instance is gone.
    type: bool
    default: true
  deadline_s:
    description:
      - Seconds to wait. The module fails with a list of what is left undone; the mode stays as set.
    type: float
    default: 60
author:
  - The Hostler developers (@hostler)
"""

EXAMPLES = r"""
- name: Give two workers a pause
  hostler.fleet.worker_state:
    names: [local-1, local-2]
    mode: paused
    reason: new compiler

- name: Pause all Docker workers for the time the registry is moved
  hostler.fleet.worker_state:
    select:
      driver: [docker]
      mode: [active]
    mode: paused
    reason: the registry moves
    until: 2h

- name: Let a worker finish and end its instance
  hostler.fleet.worker_state:
    name: local-3
    mode: draining
    deadline_s: 600
"""

RETURN = r"""
workers:
  description: Each worker with its mode before and after.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The worker's name.
      type: str
      returned: always
    changed:
      description: Whether it was not so already.
      type: bool
      returned: always
    before:
      description: What was wanted before.
      type: dict
      returned: always
    after:
      description: What is wanted now.
      type: dict
      returned: always
  sample:
    - name: local-1
      changed: true
      before: {mode: active, reason: null, until: null}
      after: {mode: paused, reason: new compiler, until: "2026-11-21T17:00:00.000Z"}
changed_workers:
  description: Names of the workers that were in another mode.
  returned: success
  type: list
  elements: str
  sample: [local-1]
left:
  description: What is left undone at the deadline, in a few words per worker.
  returned: failure after waiting
  type: dict
  sample: {local-3: "substantiated, 1 build running"}
"""

import re

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hostler.fleet.plugins.module_utils import hub, selection, waiting

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def end(module):
    """When the mode ends, as the hub takes it: an instant, a time from now, or never."""
    until = module.params["until"]
    if until is None:
        return {}
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd])", until.strip())
    if found is None:
        return {"until": until.strip()}
    return {"for_s": float(found.group(1)) * SECONDS[found.group(2)]}


def lines(order):
    """A mode with its reason and its end, as the diff shows it."""
    if not isinstance(order, dict):
        return "mode: %s\n" % order
    return "".join("%s: %s\n" % (key, order[key]) for key in sorted(order) if order[key])


def diff(results):
    return [
        {
            "before_header": one["name"],
            "after_header": one["name"],
            "before": lines(one["before"]),
            "after": lines(one["after"]),
        }
        for one in results
        if one["changed"]
    ]


def work(module, client):
    names = list(dict.fromkeys(module.params["names"] or ()))
    mode = module.params["mode"]
    rest = dict(end(module), mode=mode, reason=module.params["reason"])
    results, names = selection.order(
        client, "/workers/mode", names, module.params["select"], module.check_mode, **rest
    )
    changed = [one["name"] for one in results if one["changed"]]
    answer = {"changed": bool(changed), "changed_workers": changed, "workers": results}
    if module._diff:  # noqa: SLF001  (Ansible has no other way to ask)
        answer["diff"] = diff(results)
    if mode in ("draining", "stopped") and module.params["wait"] and not module.check_mode:
        deadline_s = module.params["deadline_s"]
        left = waiting.wait_for(client, names, waiting.not_resting, deadline_s)
        if left:
            module.fail_json(msg=waiting.undone_message(left, deadline_s), left=left, **answer)
    module.exit_json(**answer)


def main():
    module = AnsibleModule(
        argument_spec=hub.argument_spec(
            names={"type": "list", "elements": "str", "aliases": ["name"]},
            select=selection.OPTION,
            mode={"type": "str", "choices": selection.MODES, "required": True},
            reason={"type": "str"},
            until={"type": "str"},
            wait={"type": "bool", "default": True},
            deadline_s={"type": "float", "default": 60},
        ),
        mutually_exclusive=[("names", "select")],
        required_one_of=[("names", "select")],
        supports_check_mode=True,
    )
    hub.run(module, work)


if __name__ == "__main__":
    main()
