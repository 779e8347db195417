#!/usr/bin/python
# Copyright: The Hostler developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: drain
short_description: Have workers to yourself for maintenance, without losing a build
version_added: 0.1.0
description:
  - Pauses workers and waits until nothing runs on them, neither builds nor what a person has leased.
  - Workers that somebody else has paused, drained or stopped are waited for too, but stay theirs, and
    M(hostler.fleet.rejoin) does not resume them.
  - It may be run again after a play that was broken off, a pause of the same author and reason being the same pause.
  - The role C(hostler.fleet.drained) is this, your own tasks, and M(hostler.fleet.rejoin).
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
    description: Why. With the token's name it tells this pause from others.
    type: str
    required: true
  deadline_s:
    description: Seconds to wait until nothing runs. Then the module fails and says what runs where.
    type: float
    default: 600
  on_deadline:
    description:
      - What becomes of the pause at the deadline. V(undo) resumes every worker that this call has paused, V(keep) leaves
        them paused.
    type: str
    choices: [undo, keep]
    default: undo
seealso:
  - module: hostler.fleet.rejoin
author:
  - The Hostler developers (@hostler)
"""

EXAMPLES = r"""
- name: Have the workers of this batch to ourselves
  hostler.fleet.drain:
    names: "{{ ansible_play_batch }}"
    reason: new compiler
    deadline_s: 1800
  run_once: true
  delegate_to: localhost
"""

RETURN = r"""
paused:
  description: Workers whose pause is ours, by this call or one before. M(hostler.fleet.rejoin) resumes them.
  returned: always
  type: list
  elements: str
  sample: [linux-1, linux-2]
left_alone:
  description: Workers that somebody else had paused, drained or stopped, with how and why.
  returned: always
  type: dict
  sample: {linux-3: "paused by ann: broken disk"}
left:
  description: What still runs at the deadline, in a few words per worker.
  returned: failure after waiting
  type: dict
  sample: {linux-1: "build 01JD0000000000000000000000 (nightly, by ci)"}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hostler.fleet.plugins.module_utils import draining, hub, waiting


def theirs(view):
    reason = ": %s" % view["mode_reason"] if view["mode_reason"] else ""
    return "%s by %s%s" % (view["mode"], view["mode_by"], reason)


def diff(names, reason):
    return [
        {
            "before_header": name,
            "after_header": name,
            "before": "active\n",
            "after": "paused: %s\n" % reason,
        }
        for name in names
    ]


def give_way(client, overruled):
    """Somebody paused these in the moment before we did: it is their pause again."""
    for name, before in overruled.items():
        draining.order(client, before["mode"], [name], before["reason"])


def enter(module, client):
    """Pause what is active; returns the names that this call paused and the module's answer."""
    names, reason = list(dict.fromkeys(module.params["names"])), module.params["reason"]
    me = draining.own_name(client)
    views = draining.known(client, names)
    active = [name for name in names if views[name]["mode"] == "active"]
    before = [name for name in names if draining.is_ours(views[name], reason, me)]
    overruled = draining.pause(client, active, reason, module.check_mode)
    if not module.check_mode:
        give_way(client, overruled)
    now = [name for name in active if name not in overruled]
    others = {name: theirs(views[name]) for name in names if name not in active + before}
    others.update((name, before["mode"]) for name, before in overruled.items())
    answer = {"changed": bool(now), "paused": before + now, "left_alone": others}
    if module._diff:  # noqa: SLF001  (Ansible has no other way to ask)
        answer["diff"] = diff(now, reason)
    return now, answer


def give_up(module, client, now, answer, left):
    deadline_s = module.params["deadline_s"]
    told = draining.holders(client, left)
    words = "they stay paused"
    if module.params["on_deadline"] == "undo":
        draining.order(client, "active", now, None)
        answer.update(changed=False, paused=[name for name in answer["paused"] if name not in now])
        words = "the pause was undone"
    message = "%s; %s" % (waiting.undone_message(told, deadline_s), words)
    module.fail_json(msg=message, left=told, **answer)


def work(module, client):
    now, answer = enter(module, client)
    if not module.check_mode:
        names = answer["paused"] + sorted(answer["left_alone"])
        deadline_s = module.params["deadline_s"]
        left = waiting.wait_for(client, names, draining.not_quiet, deadline_s)
        if left:
            give_up(module, client, now, answer, left)
    module.exit_json(**answer)


def main():
    module = AnsibleModule(
        argument_spec=hub.argument_spec(
            names={"type": "list", "elements": "str", "required": True, "aliases": ["name"]},
            reason={"type": "str", "required": True},
            deadline_s={"type": "float", "default": 600},
            on_deadline={"type": "str", "choices": ["undo", "keep"], "default": "undo"},
        ),
        supports_check_mode=True,
    )
    hub.run(module, work)


if __name__ == "__main__":
    main()
