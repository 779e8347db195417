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
  - The hub keeps who did it (the token's name), when and why, and shows it wherever the worker is shown.
extends_documentation_fragment:
  - hostler.fleet.hub
attributes:
  check_mode:
    support: full
    description: The hub itself says what would change.
  diff_mode:
    support: full
    description: The mode before and after, for each worker that changes.
options:
  names:
    description: The workers.
    type: list
    elements: str
    required: true
    aliases: [name]
  mode:
    description:
      - V(active) takes builds.
      - V(paused) takes no new builds; what runs goes on and the instance stays for its time.
      - V(draining) takes no new builds, finishes what runs, then ends its instance.
      - V(stopped) ends its instance now; what runs is retried elsewhere.
    type: str
    choices: [active, paused, draining, stopped]
    required: true
  reason:
    description: Why, for the people who wonder later.
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
  sample: [{name: local-1, changed: true, before: active, after: paused}]
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

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hostler.fleet.plugins.module_utils import batch, hub, waiting


def mode_word(entry):
    """The mode of a result's before or after, which the hub may give with reason and author."""
    return entry["mode"] if isinstance(entry, dict) else entry


def diff(results):
    return [
        {
            "before_header": one["name"],
            "after_header": one["name"],
            "before": "%s\n" % mode_word(one["before"]),
            "after": "%s\n" % mode_word(one["after"]),
        }
        for one in results
        if one["changed"]
    ]


def work(module, client):
    names = list(dict.fromkeys(module.params["names"]))
    mode = module.params["mode"]
    rest = {"mode": mode, "reason": module.params["reason"]}
    results = batch.post(client, "/workers/mode", "names", names, module.check_mode, **rest)
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
            names={"type": "list", "elements": "str", "required": True, "aliases": ["name"]},
            mode={
                "type": "str",
                "choices": ["active", "paused", "draining", "stopped"],
                "required": True,
            },
            reason={"type": "str"},
            wait={"type": "bool", "default": True},
            deadline_s={"type": "float", "default": 60},
        ),
        supports_check_mode=True,
    )
    hub.run(module, work)


if __name__ == "__main__":
    main()
