# Copyright: The Hostler developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Workers that a module is about: by name, or by what they are (doc fragment hostler.fleet.select)."""

from __future__ import annotations

from ansible_collections.hostler.fleet.plugins.module_utils import batch

STATES = ["latent", "substantiating", "substantiated", "insubstantiating"]
MODES = ["active", "paused", "draining", "stopped"]

OPTION = {
    "type": "dict",
    "options": {
        "all": {"type": "bool", "default": False},
        "driver": {"type": "list", "elements": "str"},
        "group": {"type": "list", "elements": "str"},
        "labels": {"type": "list", "elements": "str"},
        "state": {"type": "list", "elements": "str", "choices": STATES},
        "mode": {"type": "list", "elements": "str", "choices": MODES},
        "missing": {"type": "bool"},
        "quarantined": {"type": "bool"},
        "properties": {"type": "dict"},
    },
}


def given(select):
    """The selection as the hub takes it: only what was given; None for none."""
    if select is None:
        return None
    return {key: value for key, value in select.items() if value is not None}


def order(client, path, names, select, dry_run, **rest):
    """Give an order; returns the hub's results and the names of those it is about."""
    if select is not None:
        body = dict(rest, select=given(select), dry_run=dry_run)
        results = client.post(path, body)["results"]
    else:
        results = batch.post(client, path, "names", names, dry_run, **rest)
    return results, [one["name"] for one in results]


def trim(views, fields):
    """The views with only the fields wanted, or as they are."""
    if fields is None:
        return views
    kept = {"name", *fields}
    return [{key: value for key, value in view.items() if key in kept} for view in views]
