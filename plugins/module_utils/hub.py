# Copyright: The Hostler developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every plugin of the collection has in common: how it finds the hub, and how it fails."""

from __future__ import annotations

import json
import os

from ansible.module_utils.common.text.converters import to_native
from ansible_collections.hostler.fleet.plugins.module_utils.client import Client
from ansible_collections.hostler.fleet.plugins.module_utils.errors import HubError, Misconfigured

DEFAULT_URL = "http://127.0.0.1:8010"


def argument_spec(**own):
    """The options of doc fragment hostler.fleet.hub, and the module's own."""
    spec = {
        "hub_url": {"type": "str"},
        "hub_token": {"type": "str", "no_log": True},
        "hub_token_file": {"type": "path", "no_log": False},
        "hub_state_dir": {"type": "path"},
        "hub_timeout": {"type": "int", "default": 30},
        "hub_ca_file": {"type": "path"},
    }
    spec.update(own)
    return spec


def find_url(options, environ):
    """Where the hub listens: the option, what its state directory says, the variable, the default."""
    if options["hub_url"]:
        return options["hub_url"]
    if options["hub_state_dir"]:
        return url_of_state_dir(options["hub_state_dir"])
    return environ.get("HOSTLER_URL") or DEFAULT_URL


def find_ca_file(options):
    """What to trust for https: the option, what a state directory says, the system's."""
    if options["hub_ca_file"] or not options["hub_state_dir"] or options["hub_url"]:
        return options["hub_ca_file"]
    try:
        with open(os.path.join(options["hub_state_dir"], "hub.json"), encoding="utf-8") as file:
            return json.load(file).get("ca_file")
    except (OSError, ValueError, AttributeError):
        return None  # find_url() has said what is wrong with it


def url_of_state_dir(state_dir):
    path = os.path.join(state_dir, "hub.json")
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)["url"]
    except FileNotFoundError:
        raise Misconfigured(
            "no hub was started from %s, as it holds no hub.json; start one"
            " (ansible-playbook playbooks/provision.yml), or say where it is (hub_url)" % state_dir
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as failure:
        raise Misconfigured("hub_state_dir: %s tells no url: %s" % (path, failure)) from None


def find_token(options, environ):
    """The token by the documented order; options come before variables.

    Raises Misconfigured when a named file cannot be read, or holds no single word.
    """
    if options["hub_token"]:
        return options["hub_token"]
    if options["hub_token_file"]:
        return read_token(options["hub_token_file"], "hub_token_file")
    if options["hub_state_dir"]:
        return read_token(os.path.join(options["hub_state_dir"], "admin.token"), "hub_state_dir")
    if environ.get("HOSTLER_TOKEN"):
        return environ["HOSTLER_TOKEN"]
    if environ.get("HOSTLER_TOKEN_FILE"):
        return read_token(os.path.expanduser(environ["HOSTLER_TOKEN_FILE"]), "HOSTLER_TOKEN_FILE")
    raise Misconfigured(
        "no token for the hub: give hub_token_file (or hub_token), or set HOSTLER_TOKEN_FILE"
        " or HOSTLER_TOKEN; a hub writes an admin's one to admin.token in its state directory"
    )


def read_token(path, option):
    try:
        with open(path, encoding="utf-8") as file:
            token = file.read().strip()
    except (OSError, UnicodeDecodeError) as failure:
        reason = getattr(failure, "strerror", None) or "it is no text"
        raise Misconfigured("%s: %s cannot be read: %s" % (option, path, reason)) from None
    if not token or len(token.split()) != 1:
        raise Misconfigured("%s: %s should hold one token and nothing else" % (option, path))
    return token


def open_client(options, environ, keep_secret):
    """A Client by a plugin's options; keep_secret(token) is called before the token is used."""
    url = find_url(options, environ)
    token = find_token(options, environ)
    keep_secret(token)
    timeout_s = options["hub_timeout"]
    if timeout_s <= 0:
        raise Misconfigured("hub_timeout: %s is no time; give seconds above 0" % timeout_s)
    return Client(url, token, timeout_s, find_ca_file(options))


def run(module, work):
    """Call work(module, client), a function that exits; a HubError becomes the module's failure."""

    def keep_secret(token):
        module.no_log_values.add(to_native(token))

    try:
        work(module, open_client(module.params, os.environ, keep_secret))
    except HubError as error:
        module.fail_json(msg=error.message, **describe(error))


def describe(error):
    """What a failed result tells beside its message."""
    if error.status is None:
        return {}
    return {
        "hub_problem": {
            "status": error.status,
            "pointer": error.pointer,
            "errors": error.details,
        }
    }
