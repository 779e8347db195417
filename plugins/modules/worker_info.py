#!/usr/bin/python
# Copyright: The Hostler developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: worker_info
short_description: Tell what workers there are and how they are
version_added: 0.1.0
description:
  - Asks the hub for its workers, all of them or those selected.
extends_documentation_fragment:
  - hostler.fleet.hub
  - hostler.fleet.select
attributes:
  check_mode:
    support: full
    description: Nothing is changed.
  diff_mode:
    support: none
    description: Nothing is changed.
options:
  names:
    description:
      - Only these workers. Those the hub does not know are listed in RV(unknown).
    type: list
    elements: str
    aliases: [name]
  state:
    description: Only workers whose instance is in this state.
    type: str
    choices: [latent, substantiating, substantiated, insubstantiating]
  mode:
    description: Only workers in this mode.
    type: str
    choices: [active, paused, draining, stopped]
  driver:
    description: Only workers of this driver.
    type: str
  label:
    description: Only workers with this label.
    type: str
  missing:
    description: Only workers that should be attached and are not.
    type: bool
    default: false
  refusals:
    description:
      - Tell also who tried to attach and was refused, in RV(refusals). It needs the role of an operator.
    type: bool
    default: false
  fields:
    description:
      - Return only these of the keys of RV(workers), beside C(name). It saves a second for a thousand workers.
    type: list
    elements: str
author:
  - The Hostler developers (@hostler)
"""

EXAMPLES = r"""
- name: Ask for every worker
  hostler.fleet.worker_info:
  register: fleet

- name: Ask for those that need somebody
  hostler.fleet.worker_info:
    select:
      driver: [docker, ec2]
      quarantined: true
  register: fleet

- name: Ask who knocked with a wrong name or password
  hostler.fleet.worker_info:
    names: []
    refusals: true
  register: strangers

- name: Ask for those that are missing
  hostler.fleet.worker_info:
    missing: true
  register: fleet
  failed_when: fleet.workers | length > 0
"""

RETURN = r"""
workers:
  description: The workers by name.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The worker's name.
      type: str
      returned: always
    driver:
      description: What starts its instances.
      type: str
      returned: always
    description:
      description: What it is for, in its owner's words.
      type: str
      returned: always
    mode:
      description:
        - "What an operator wants of it: V(active), V(paused), V(draining) or V(stopped)."
      type: str
      returned: always
    mode_reason:
      description: Why, in the operator's words.
      type: str
      returned: always
    mode_by:
      description: Who said so, by the token's name.
      type: str
      returned: always
    mode_at:
      description: When they said so.
      type: str
      returned: always
    mode_until:
      description: When it is active again by itself.
      type: str
      returned: always
    state:
      description:
        - "How its instance is: V(latent), V(substantiating), V(substantiated) or V(insubstantiating)."
      type: str
      returned: always
    state_since:
      description: When its instance came into this state.
      type: str
      returned: always
    attached:
      description: Whether its agent is connected.
      type: bool
      returned: always
    instance:
      description: The id of its instance, where it has one.
      type: str
      returned: always
    epoch:
      description: How many instances it has had; the fencing number of this one.
      type: int
      returned: always
    up_since:
      description: When its instance attached first.
      type: str
      returned: always
    uses:
      description: How many builds its instance has had.
      type: int
      returned: always
    retiring:
      description: Why its instance gets no new builds and is replaced when it is idle.
      type: str
      returned: always
    failed_starts:
      description: How many starts in a row have failed.
      type: int
      returned: always
    isolation:
      description:
        - "What separates its builds from its agent and from each other, as its agent reports it: V(user),
          V(container) or V(none); null until an agent has attached."
      type: str
      returned: always
    exposes_hub:
      description:
        - Whether its builds run as the hub's own user on the hub's machine, so that who submits them can act as the
          hub's owner.
      type: bool
      returned: always
    admission:
      description:
        - How its machine compares with what its definition expects of it. C(state) is V(unknown) until its agent
          attaches, V(asking), V(met) or V(unmet); C(differences) is a list of C(what), C(expected) and C(found);
          C(tools) is what was found of each tool. None where nothing is expected.
      type: dict
      returned: always
    quarantine:
      description: Until when and why it gets no builds.
      type: dict
      returned: always
    missing:
      description: Since when and why it is missing.
      type: dict
      returned: always
    lease:
      description: Which person has it (C(holder), C(reason), C(until)) or waits for it (C(state) is V(waiting)).
      type: dict
      returned: always
    incidents:
      description: Ids of its open incidents, by kind.
      type: dict
      returned: always
    last_error:
      description: What went wrong last.
      type: str
      returned: always
    builds:
      description: Ids of the builds that it runs.
      type: list
      elements: str
      returned: always
    properties:
      description: Facts that builds can require.
      type: dict
      returned: always
    labels:
      description: Words that builds can require.
      type: list
      elements: str
      returned: always
    max_builds:
      description: How many builds it runs at once.
      type: int
      returned: always
    definition:
      description: What its owner defined, without the password.
      type: dict
      returned: always
    facts:
      description: What its agent reports of the machine.
      type: dict
      returned: always
    removing:
      description: Whether it disappears once its instance is proven gone.
      type: bool
      returned: always
    revision:
      description: How often its row has changed.
      type: int
      returned: always
    why:
      description: Why it is C(not_started), C(not_used) and C(not_stopped) now; none for what it is.
      type: dict
      returned: always
  sample: [{name: local-1, driver: local, mode: active, state: latent}]
refusals:
  description: Attempts to attach that were refused, latest first, as they were given and counted where they are alike.
  returned: with O(refusals)
  type: list
  elements: dict
  contains:
    name:
      description: The name that was given.
      type: str
      returned: always
    client:
      description: The address that it came from.
      type: str
      returned: always
    reason:
      description: Why it was refused.
      type: str
      returned: always
    first_at:
      description: When it was tried first.
      type: str
      returned: always
    last_at:
      description: When it was tried last.
      type: str
      returned: always
    count:
      description: How often it was tried.
      type: int
      returned: always
  sample:
    - name: build-07
      client: 192.0.2.7
      reason: unknown worker or wrong token
      first_at: "2026-11-21T08:00:00.000Z"
      last_at: "2026-11-21T09:30:00.000Z"
      count: 12
unknown:
  description: Names of O(names) that the hub does not know.
  returned: success
  type: list
  elements: str
  sample: []
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hostler.fleet.plugins.module_utils import batch, hub, selection

FILTERS = ("state", "mode", "driver", "label")


def matches(view, wanted, missing):
    """Whether the view is one of those selected (for names, which the hub does not filter)."""
    if missing and not view["missing"]:
        return False
    if wanted.get("label") and wanted["label"] not in view["labels"]:
        return False
    return all(view[key] == wanted[key] for key in ("state", "mode", "driver") if wanted.get(key))


def pages(client, wanted, missing):
    """Every worker that matches, page after page."""
    query = {key: value for key, value in wanted.items() if value is not None}
    query["limit"] = 500
    if missing:
        query["missing"] = "true"
    views = []
    while True:
        page = client.get("/workers", query)
        views.extend(page["items"])
        if not page["next"]:
            return views
        query["after"] = page["next"]


def selected(client, select):
    """The workers that the hub selects, and no unknown ones."""
    answer = client.post("/workers/query", {"select": selection.given(select)})
    return answer["items"], answer["unknown"]


def work(module, client):
    wanted = {key: module.params[key] for key in FILTERS}
    missing = module.params["missing"]
    names = module.params["names"]
    unknown = []
    if module.params["select"] is not None:
        views, unknown = selected(client, module.params["select"])
    elif names is None:
        views = pages(client, wanted, missing)
    else:
        views, unknown = batch.query(client, list(dict.fromkeys(names)))
    chosen = [view for view in views if matches(view, wanted, missing)]
    answer = {"workers": selection.trim(chosen, module.params["fields"]), "unknown": unknown}
    if module.params["refusals"]:
        answer["refusals"] = client.get("/refusals", {"limit": 500})["items"]
    module.exit_json(**answer)


def main():
    module = AnsibleModule(
        argument_spec=hub.argument_spec(
            names={"type": "list", "elements": "str", "aliases": ["name"]},
            select=selection.OPTION,
            state={"type": "str", "choices": selection.STATES},
            mode={"type": "str", "choices": selection.MODES},
            driver={"type": "str"},
            label={"type": "str"},
            missing={"type": "bool", "default": False},
            refusals={"type": "bool", "default": False},
            fields={"type": "list", "elements": "str"},
        ),
        mutually_exclusive=[("names", "select")],
        supports_check_mode=True,
    )
    hub.run(module, work)


if __name__ == "__main__":
    main()
