#!/usr/bin/python
# Copyright: The Hostler developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: token
short_description: Give and take access to the hub
version_added: 0.1.0
description:
  - Creates a token and writes it to a file, or revokes it. The token is in no output and no result.
  - The hub keeps only a hash, so a token whose file is lost must be revoked and created again.
extends_documentation_fragment:
  - hostler.fleet.hub
attributes:
  check_mode:
    support: full
    description: Nothing is created or revoked.
  diff_mode:
    support: none
    description: A token has no contents to show.
options:
  name:
    description: Whose token it is. What it does is recorded under this name.
    type: str
    required: true
  state:
    description: Whether there is such a token.
    type: str
    choices: [present, absent]
    default: present
  role:
    description: What the token may do. Required for O(state=present).
    type: str
    choices: [viewer, submitter, operator, admin]
  expires_in_s:
    description: Seconds until it ends.
    type: int
  dest:
    description: The file for a new token, readable by its owner only. Required for O(state=present).
    type: path
author:
  - The Hostler developers (@hostler)
"""

EXAMPLES = r"""
- name: Let continuous integration submit builds
  hostler.fleet.token:
    name: ci
    role: submitter
    dest: /etc/ci/hostler.token

- name: And no more
  hostler.fleet.token:
    name: ci
    state: absent
"""

RETURN = r"""
role:
  description: What the token may do.
  returned: for O(state=present)
  type: str
  sample: submitter
"""

import os
import tempfile

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hostler.fleet.plugins.module_utils import hub


def find(client, name):
    known = client.get("/tokens")
    items = known["items"] if isinstance(known, dict) else known
    return next((one for one in items if one["name"] == name), None)


def keep(module, token):
    """Write the token to dest with mode 0600, whole or not at all."""
    module.no_log_values.add(token)
    dest = module.params["dest"]
    with tempfile.NamedTemporaryFile(
        "w", dir=os.path.dirname(os.path.abspath(dest)), delete=False
    ) as file:
        file.write(token + "\n")
    module.atomic_move(file.name, dest)
    module.set_mode_if_different(dest, 0o600, False)


def check_known(module, known):
    """Exit or fail for a token that there is already."""
    name, role, dest = (module.params[key] for key in ("name", "role", "dest"))
    if known["role"] != role:
        module.fail_json(
            msg="token %s has role %s, not %s; revoke it first (state: absent)"
            % (name, known["role"], role)
        )
    if not os.path.exists(dest):
        module.fail_json(
            msg="token %s exists, but not in %s, and the hub keeps only its hash;"
            " revoke it first (state: absent)" % (name, dest)
        )
    module.exit_json(changed=False, role=role)


def work(module, client):
    name, role, dest = (module.params[key] for key in ("name", "role", "dest"))
    known = find(client, name)
    if module.params["state"] == "absent":
        if known and not module.check_mode:
            client.delete("/tokens/" + name)
        module.exit_json(changed=bool(known))
    if known:
        check_known(module, known)
    if not os.access(os.path.dirname(os.path.abspath(dest)), os.W_OK):
        module.fail_json(msg="dest: no file can be written at %s" % dest)
    if not module.check_mode:
        body = {"name": name, "role": role, "expires_in_s": module.params["expires_in_s"]}
        keep(module, client.post_once("/tokens", body)["token"])
    module.exit_json(changed=True, role=role)


def main():
    module = AnsibleModule(
        argument_spec=hub.argument_spec(
            name={"type": "str", "required": True},
            state={"type": "str", "choices": ["present", "absent"], "default": "present"},
            role={"type": "str", "choices": ["viewer", "submitter", "operator", "admin"]},
            expires_in_s={"type": "int"},
            dest={"type": "path"},
        ),
        required_if=[("state", "present", ["role", "dest"])],
        supports_check_mode=True,
    )
    hub.run(module, work)


if __name__ == "__main__":
    main()
