#!/usr/bin/python
# Copyright: The Hostler developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: build_info
short_description: Tell what builds there are and how they went
version_added: 0.1.0
description:
  - Asks the hub for one build, with why it waits, or for its latest builds.
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
    description: Only this build.
    type: str
  state:
    description: Only builds in this state.
    type: str
    choices: [queued, running, success, failure, exception, cancelled]
  worker:
    description: Only builds of this worker.
    type: str
  limit:
    description: How many builds at most, the newest first.
    type: int
    default: 50
  log_tail_lines:
    description: With O(id), how many of the last lines of its log to return.
    type: int
    default: 0
author:
  - The Hostler developers (@hostler)
"""

EXAMPLES = r"""
- name: Ask for the builds that wait
  hostler.fleet.build_info:
    state: queued
  register: waiting

- name: Say why they do
  ansible.builtin.debug:
    msg: "{{ waiting.builds | items2dict(key_name='id', value_name='why') }}"
"""

RETURN = r"""
builds:
  description: The builds, the newest first.
  returned: success
  type: list
  elements: dict
  contains:
    id:
      description: The build's id.
      type: str
      returned: always
    name:
      description: What it is called.
      type: str
      returned: always
    state:
      description: V(queued), V(running), V(success), V(failure), V(exception) or V(cancelled).
      type: str
      returned: always
    spec:
      description: The build as it was submitted.
      type: dict
      returned: always
    worker:
      description: The worker that runs or ran it.
      type: str
      returned: always
    attempts:
      description: How often it was started.
      type: int
      returned: always
    submitted_by:
      description: Who submitted it, by the token's name.
      type: str
      returned: always
    submitted_at:
      description: When it was submitted.
      type: str
      returned: always
    started_at:
      description: When its latest attempt began.
      type: str
      returned: always
    finished_at:
      description: When it had its result.
      type: str
      returned: always
    result_text:
      description: How it ended, in a sentence.
      type: str
      returned: always
    why:
      description:
        - Why it still waits, in a sentence. A list says it of those builds that are next, 20 at most and fewer in a
          large fleet; a single build's answer always does.
      type: str
      returned: always
    properties:
      description: Those it was submitted with, and over them those that its steps have set.
      type: dict
      returned: always
    steps:
      description: The steps of its latest attempt with their results; a list of builds leaves them out.
      type: list
      elements: dict
      returned: always
    why_workers:
      description:
        - For each worker all reasons why it does not run the build, and a remedy for each; only in a single build's
          answer, and only while it waits.
      type: list
      elements: dict
      returned: while it waits
  sample: [{id: 01JD0000000000000000000000, state: queued, why: "local-1 is paused"}]
log_tail:
  description: The last lines of the step that failed, or else of the last one.
  returned: with O(id)
  type: list
  elements: str
  sample: ["compiling hub/app.py"]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hostler.fleet.plugins.module_utils import build_log, hub, paging


def work(module, client):
    params = module.params
    if params["id"]:
        build = client.get("/builds/" + params["id"])
        lines = build_log.tail(client, build, params["log_tail_lines"])
        module.exit_json(builds=[build], log_tail=lines)
    query = {key: params[key] for key in ("state", "worker") if params[key]}
    module.exit_json(builds=paging.newest(module, client, "/builds", query, params["limit"]))


def main():
    module = AnsibleModule(
        argument_spec=hub.argument_spec(
            id={"type": "str"},
            state={
                "type": "str",
                "choices": ["queued", "running", "success", "failure", "exception", "cancelled"],
            },
            worker={"type": "str"},
            limit={"type": "int", "default": 50},
            log_tail_lines={"type": "int", "default": 0},
        ),
        mutually_exclusive=[("id", "state"), ("id", "worker")],
        supports_check_mode=True,
    )
    hub.run(module, work)


if __name__ == "__main__":
    main()
