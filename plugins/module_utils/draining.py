# Copyright: The Hostler developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pauses that remember whose they are: what modules drain and rejoin know of each other.

A pause is ours when its author is our token's name and its reason begins with ours. Nothing else is
kept anywhere, so that a play that was broken off can be run again, and somebody else's pause is
never taken for ours, nor ended.
"""

from __future__ import annotations

from ansible_collections.hostler.fleet.plugins.module_utils import batch, waiting
from ansible_collections.hostler.fleet.plugins.module_utils.errors import HubError, NotFound

SHOWN_BUILDS = 10


def own_name(client):
    """The name under which the hub notes what we order."""
    return client.get("/whoami")["name"]


def is_ours(view, reason, me):
    """Whether we paused the worker for this reason, or for it and what went wrong then."""
    said = view["mode_reason"] or ""
    ours = said == reason or said.startswith(reason + ": ")
    return view["mode"] == "paused" and ours and view["mode_by"] == me


def known(client, names):
    """The views of the workers, by name; raises NotFound for one that is not defined."""
    views, unknown = batch.query(client, names)
    if unknown:
        raise NotFound("there is no worker %s" % ", ".join(unknown[:5]), 404)
    return {view["name"]: view for view in views}


def pause(client, names, reason, dry_run=False):
    """Pause workers; returns {name: before} of those that were not active a moment ago any more."""
    results = order(client, "paused", names, reason, dry_run)
    return {one["name"]: one["before"] for one in results if one["before"]["mode"] != "active"}


def order(client, mode, names, reason, dry_run=False):
    if not names:
        return []
    return batch.post(client, "/workers/mode", "names", names, dry_run, mode=mode, reason=reason)


def not_quiet(view):
    """What holds the worker, in a few words, or None when nothing does."""
    if view is None:
        return "not defined"
    for words in waiting.leased(view):
        return words
    if view["builds"]:
        return "build %s" % ", ".join(view["builds"])
    return None


def not_sound(view):
    """What keeps the worker from taking builds again, or None when it may.

    Where nothing runs nothing can be broken: the next build starts a new instance.
    """
    if view is None:
        return "not defined"
    if view["missing"]:
        return "missing: %s" % view["missing"]["reason"]
    if view["attached"] or (view["state"] == "latent" and view["driver"] != "permanent"):
        return None
    return "%s, its agent is not attached" % view["state"]


def holders(client, left):
    """What holds each worker that is left, with the builds' names and who submitted them."""
    told, asked = {}, 0
    views = batch.query(client, sorted(left))[0]
    builds = {view["name"]: view["builds"] for view in views}
    for name, words in left.items():
        lines = []
        for build in builds.get(name, []):
            asked += 1
            lines.append(describe(client, build) if asked <= SHOWN_BUILDS else "build " + build)
        told[name] = ", ".join(lines) or words
    return told


def describe(client, build):
    try:
        view = client.get("/builds/" + build)
    except HubError:  # its id says enough when the hub cannot say more
        return "build " + build
    return "build %s (%s, by %s)" % (build, view["name"] or "no name", view["submitted_by"])
