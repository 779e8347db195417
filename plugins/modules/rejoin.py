#!/usr/bin/python
# Copyright: The Hostler developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rejoin
short_description: Give workers back to the builds after maintenance
version_added: 0.1.0
description:
  - Checks workers that M(hostler.fleet.drain) has paused, and resumes them.
  - A worker whose mode is by now somebody else's doing stays as it is.
  - A worker that is not sound, or in O(failed), stays paused, and its reason says what is wrong.
extends_documentation_fragment:
  - hostler.fleet.hub
attributes:
  check_mode:
    support: full
    description: The hub itself says what would change; nothing is waited for.
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
  reason:
    description: Why they were paused, as M(hostler.fleet.drain) was told.
    type: str
    required: true
  failed:
    description: Workers that went wrong, with what. They stay paused. One with an empty text went well.
    type: dict
    default: {}
  check:
    description:
      - V(attached) takes a worker for sound when its agent is attached, or when it is latent, since then there is nothing
        to be unsound. V(none) resumes without a look.
    type: str
    choices: [attached, none]
    default: attached
  deadline_s:
    description: Seconds that agents may take to attach. Then the module fails; what is sound is resumed all the same.
    type: float
    default: 120
seealso:
  - module: hostler.fleet.drain
author:
  - The Hostler developers (@hostler)
"""

EXAMPLES = r"""
- name: Give the workers of this batch back
  hostler.fleet.rejoin:
    names: "{{ ansible_play_batch }}"
    reason: new compiler
  run_once: true
  delegate_to: localhost
"""

RETURN = r"""
resumed:
  description: Workers that take builds again.
  returned: always
  type: list
  elements: str
  sample: [linux-1, linux-2]
kept:
  description: Workers that stay paused since they are not sound or had failed, and why.
  returned: always
  type: dict
  sample: {linux-3: "substantiated, its agent is not attached"}
left_alone:
  description: Workers whose mode is not our doing.
  returned: always
  type: list
  elements: str
  sample: []
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hostler.fleet.plugins.module_utils import draining, hub, waiting

REASON_CHARACTERS = 1000


def unsound(module, client, names):
    """{name: what is wrong} of those that do not come to be sound in time."""
    if module.params["check"] == "none" or not names:
        return {}
    deadline_s = 0 if module.check_mode else module.params["deadline_s"]
    return waiting.wait_for(client, names, draining.not_sound, deadline_s)


def keep(client, kept, reason, dry_run):
    """Say in each one's reason what is wrong; where that is said already nothing changes."""
    results = []
    for name, words in kept.items():
        why = ("%s: %s" % (reason, words))[:REASON_CHARACTERS]
        results += draining.order(client, "paused", [name], why, dry_run)
    return results


def diff(results):
    return [
        {
            "before_header": one["name"],
            "after_header": one["name"],
            "before": "%s: %s\n" % (one["before"]["mode"], one["before"]["reason"]),
            "after": "%s: %s\n" % (one["after"]["mode"], one["after"]["reason"]),
        }
        for one in results
        if one["changed"]
    ]


def work(module, client):
    names, reason = list(dict.fromkeys(module.params["names"])), module.params["reason"]
    me = draining.own_name(client)
    views = draining.known(client, names)
    ours = [name for name in names if draining.is_ours(views[name], reason, me)]
    failed = {name: str(why) for name, why in module.params["failed"].items() if why}
    failed = {name: why for name, why in failed.items() if name in ours}
    kept = dict(failed, **unsound(module, client, [name for name in ours if name not in failed]))
    resumed = [name for name in ours if name not in kept]
    results = keep(client, kept, reason, module.check_mode)
    results += draining.order(client, "active", resumed, None, module.check_mode)
    answer = {
        "changed": any(one["changed"] for one in results),
        "resumed": resumed,
        "kept": kept,
        "left_alone": [name for name in names if name not in ours],
    }
    if module._diff:  # noqa: SLF001  (Ansible has no other way to ask)
        answer["diff"] = diff(results)
    wrong = {name: words for name, words in kept.items() if name not in failed}
    if wrong and not module.check_mode:
        message = waiting.undone_message(wrong, module.params["deadline_s"])
        module.fail_json(msg=message + "; they stay paused", **answer)
    module.exit_json(**answer)


def main():
    module = AnsibleModule(
        argument_spec=hub.argument_spec(
            names={"type": "list", "elements": "str", "required": True, "aliases": ["name"]},
            reason={"type": "str", "required": True},
            failed={"type": "dict", "default": {}},
            check={"type": "str", "choices": ["attached", "none"], "default": "attached"},
            deadline_s={"type": "float", "default": 120},
        ),
        supports_check_mode=True,
    )
    hub.run(module, work)


if __name__ == "__main__":
    main()
