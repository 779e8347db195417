#!/usr/bin/python
# Copyright: The Hostler developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: lease
short_description: Take a whole worker for yourself, and give it back
version_added: 0.1.0
description:
  - A lease gives one person (the name of the token) a worker with all its slots. Builds that run there are waited for,
    and no other build or person gets it meanwhile. A worker without an instance is started.
  - A lease ends when it is released, when it expires, when an operator stops the worker, and when its instance is lost.
  - Afterwards the instance is replaced, since a person leaves behind what nobody knows of, unless O(keep) says
    otherwise. The machine of a C(permanent) worker is its owner's to put in order.
extends_documentation_fragment:
  - hostler.fleet.hub
attributes:
  check_mode:
    support: full
    description: The hub itself says what would change.
  diff_mode:
    support: full
    description: Who has the worker, before and after.
options:
  state:
    description:
      - V(acquired) takes the worker, or finds that you have it already.
      - V(renewed) lets your lease last for another O(ttl_s) from now.
      - V(released) gives it back, or stops waiting for it.
    type: str
    choices: [acquired, renewed, released]
    default: acquired
  worker:
    description: The worker.
    type: str
    required: true
    aliases: [name]
  reason:
    description: Why, for the people who wonder. Without it a renewed lease keeps the one it had.
    type: str
  ttl_s:
    description:
      - Seconds until the lease expires. For V(acquired) 3600 by default, for V(renewed) what it was acquired for.
    type: float
  wait_s:
    description:
      - For O(state=acquired), seconds to wait for builds to end and for the instance to come. With 0 it is taken only if
        it is free at once.
    type: float
    default: 300
  keep:
    description:
      - Whether the instance goes on as you leave it. Said when acquiring it also counts when the lease expires.
      - When releasing, the default is what was said when acquiring.
    type: bool
  force:
    description: For O(state=released), end somebody else's lease, as an operator.
    type: bool
    default: false
author:
  - The Hostler developers (@hostler)
"""

EXAMPLES = r"""
- name: Take a worker to look at a failing test
  hostler.fleet.lease:
    worker: linux-7
    reason: test_transfers fails here only
    ttl_s: 7200
  register: mine

- name: Say where it is
  ansible.builtin.debug:
    msg: "{{ mine.lease.connection.facts.hostname }} until {{ mine.lease.until }}"

- name: Keep it for two hours more
  hostler.fleet.lease:
    worker: linux-7
    state: renewed

- name: Give it back
  hostler.fleet.lease:
    worker: linux-7
    state: released
"""

RETURN = r"""
lease:
  description: The lease. Null in check mode for one that would be made, and when there is none to release.
  returned: always
  type: dict
  contains:
    id:
      description: Its id. What names another one is refused.
      type: str
      returned: always
    worker:
      description: The worker.
      type: str
      returned: always
    state:
      description: V(waiting), V(held) or V(ended).
      type: str
      returned: always
    holder:
      description: Whose it is, by the token's name.
      type: str
      returned: always
    reason:
      description: Why.
      type: str
      returned: always
    keep:
      description: Whether the instance goes on afterwards.
      type: bool
      returned: always
    ttl_s:
      description: For how many seconds it is given.
      type: float
      returned: always
    asked_at:
      description: When it was asked for.
      type: str
      returned: always
    granted_at:
      description: When it was granted.
      type: str
      returned: always
    until:
      description: When it expires, or until when it is waited for.
      type: str
      returned: always
    why:
      description: Why it is still waited for.
      type: str
      returned: always
    connection:
      description:
        - How to get to the worker while you have it, as far as the driver and the agent tell. C(facts) are the
          machine's own, such as C(hostname); C(handle) is the driver's, such as a container's id; C(driver_options)
          are those it was started with, such as an SSH host.
      type: dict
      returned: always
    ended_at:
      description: When it ended.
      type: str
      returned: always
    end_reason:
      description: How it ended.
      type: str
      returned: always
  sample: {id: 01JD0000000000000000000000, worker: linux-7, state: held, holder: ann, until: "2026-01-02T12:00:00.000Z"}
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hostler.fleet.plugins.module_utils import hub, numbers
from ansible_collections.hostler.fleet.plugins.module_utils.errors import HubUnreachable

POLL_S = 20


def current(client, worker):
    """The lease of the worker that lasts, or None."""
    items = client.get("/leases", {"worker": worker})["items"]
    return items[0] if items else None


def owner(lease):
    """A line about who has the worker, for a diff."""
    if lease is None or lease["state"] == "ended":
        return "nobody\n"
    words = "%s, %s until %s" % (lease["holder"], lease["state"], lease["until"])
    return "%s: %s\n" % (words, lease["reason"]) if lease["reason"] else words + "\n"


def given(**values):
    return {key: value for key, value in values.items() if value is not None}


def wait_for(client, lease, wait_s, now=time.monotonic):
    """The lease once it is no longer waited for, which the hub ends itself when its time is over."""
    end = now() + wait_s + POLL_S
    why = lease["why"]
    while lease["state"] == "waiting" and now() < end:
        try:
            lease = client.wait_get("/leases/" + lease["id"], POLL_S)
        except HubUnreachable:  # a hub that restarts has not forgotten who waits
            if now() >= end:
                raise
        why = lease["why"] or why
    return lease, why


def acquired(module, client):
    params = module.params
    terms = given(reason=params["reason"], ttl_s=params["ttl_s"], keep=params["keep"])
    body = dict(terms, worker=params["worker"], wait_s=params["wait_s"], dry_run=module.check_mode)
    answer = client.post("/leases", body)
    lease = answer["lease"]
    if lease is None or module.check_mode:
        return answer
    lease, why = wait_for(client, lease, params["wait_s"])
    if lease["state"] != "held":
        module.fail_json(
            msg="worker %s was not leased: %s (%s)"
            % (params["worker"], lease["end_reason"] or "it is still waited for", why),
            changed=False,
            lease=lease,
        )
    return {"changed": answer["changed"], "lease": lease}


def renewed(module, client):
    params = module.params
    lease = current(client, params["worker"])
    if lease is None:
        module.fail_json(msg="worker %s is leased by nobody" % params["worker"], lease=None)
    body = given(ttl_s=params["ttl_s"], reason=params["reason"])
    return client.post("/leases/%s/renew" % lease["id"], dict(body, dry_run=module.check_mode))


def released(module, client):
    params = module.params
    lease = current(client, params["worker"])
    if lease is None:
        return {"changed": False, "lease": None}
    body = given(keep=params["keep"], force=params["force"], dry_run=module.check_mode)
    return client.post("/leases/%s/release" % lease["id"], body)


STATES = {"acquired": acquired, "renewed": renewed, "released": released}


def after(params, answer):
    """What the diff shows: in check mode the hub tells only whether there would be a change."""
    if params["state"] == "released" and answer["changed"]:
        return "nobody\n"
    if answer["lease"] is None and params["state"] == "acquired":
        seconds = numbers.plain(params["ttl_s"] or 3600.0)
        return "you, held for %s s: %s\n" % (seconds, params["reason"] or "no reason given")
    return owner(answer["lease"])


def work(module, client):
    worker = module.params["worker"]
    before = owner(current(client, worker))
    answer = STATES[module.params["state"]](module, client)
    if module._diff:  # noqa: SLF001  (Ansible has no other way to ask)
        answer["diff"] = {
            "before_header": worker,
            "after_header": worker,
            "before": before,
            "after": after(module.params, answer),
        }
    module.exit_json(**answer)


def main():
    module = AnsibleModule(
        argument_spec=hub.argument_spec(
            state={
                "type": "str",
                "choices": ["acquired", "renewed", "released"],
                "default": "acquired",
            },
            worker={"type": "str", "required": True, "aliases": ["name"]},
            reason={"type": "str"},
            ttl_s={"type": "float"},
            wait_s={"type": "float", "default": 300},
            keep={"type": "bool"},
            force={"type": "bool", "default": False},
        ),
        supports_check_mode=True,
    )
    hub.run(module, work)


if __name__ == "__main__":
    main()
