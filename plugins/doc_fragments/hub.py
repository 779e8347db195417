# Copyright: The Hostler developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  hub_url:
    description:
      - Where the hub listens.
      - Without it O(hub_state_dir) counts, then the environment variable E(HOSTLER_URL), then V(http://127.0.0.1:8010).
      - Plain C(http) is taken for this machine's loopback only, since the token would travel in the clear.
    type: str
  hub_token:
    description:
      - The bearer token. Prefer O(hub_token_file), which keeps it out of variables.
      - Without a token, O(hub_token_file) and O(hub_state_dir), the environment variables E(HOSTLER_TOKEN) and then
        E(HOSTLER_TOKEN_FILE) count.
    type: str
  hub_token_file:
    description:
      - A file that holds the token, on the machine where the plugin runs.
    type: path
  hub_state_dir:
    description:
      - The state directory of a hub on the machine where the plugin runs. It tells the hub's URL (C(hub.json)) and
        holds an admin's token (C(admin.token)).
    type: path
  hub_timeout:
    description:
      - Seconds that the hub may take to answer one request.
    type: int
    default: 30
  hub_ca_file:
    description:
      - A PEM file with the certificate authority of a hub behind C(https), where the system does not know it.
    type: path
notes:
  - All modules that ask a hub are in the action group C(hostler.fleet.fleet), so that C(module_defaults) says once
    where it is.
"""
