# Copyright: The Hostler developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waiting for workers to become what was asked for, until a deadline."""

from __future__ import annotations

import time

from ansible_collections.hostler.fleet.plugins.module_utils import batch

FIRST_POLL_S = 0.05
SLOWEST_POLL_S = 1.0


class Clock(object):
    """The time a waiter lives by; tests give their own."""

    now = staticmethod(time.monotonic)
    sleep = staticmethod(time.sleep)


def wait_for(client, names, left_undone, deadline_s, clock=Clock):
    """Ask for the workers until none is left undone or deadline_s seconds have passed.

    left_undone(view) says in a few words what is missing, or None when all is done; view is None
    for a worker the hub does not know. Words that are GivenUp are not waited for any longer.
    Returns {name: words} of what is left, empty when done. Only workers that are waited for are
    asked for again.
    """
    end = clock.now() + deadline_s
    poll_s = FIRST_POLL_S
    left = dict.fromkeys(names, "")
    given_up = {}
    while True:
        left = look(client, list(left), left_undone)
        given_up.update((name, words) for name, words in left.items() if is_given_up(words))
        left = {name: words for name, words in left.items() if name not in given_up}
        now = clock.now()
        if not left or now >= end:
            return dict(given_up, **left)
        clock.sleep(min(poll_s, end - now))
        poll_s = min(poll_s * 1.5, SLOWEST_POLL_S)


class GivenUp(str):
    """What is missing of a worker for which nothing more is being done."""

    __slots__ = ()


def is_given_up(words):
    """Whether it is of no use to wait."""
    return isinstance(words, GivenUp)


def look(client, names, left_undone):
    """{name: words} of the workers that are left undone now."""
    views, unknown = batch.query(client, names)
    seen = [(view["name"], left_undone(view)) for view in views]
    seen += [(name, left_undone(None)) for name in unknown]
    return {name: words for name, words in seen if words}


def undone_message(left, deadline_s):
    """One line that names what is left, and how much more."""
    shown = ["%s (%s)" % (name, left[name]) for name in sorted(left)[:10]]
    if len(left) > len(shown):
        shown.append("and %d more" % (len(left) - len(shown)))
    given_up = all(is_given_up(words) for words in left.values())
    return "%s%d worker%s left undone: %s" % (
        "" if given_up else "after %s s " % deadline_s,
        len(left),
        " is" if len(left) == 1 else "s are",
        ", ".join(shown),
    )


def not_resting(view):
    """Left undone by a worker that should have finished, or given up, its work and its instance."""
    if view is None:
        return None
    if view["builds"]:
        count = len(view["builds"])
        return "%s, %d build%s running" % (view["state"], count, "" if count == 1 else "s")
    if view["state"] != "latent":
        return ", ".join([view["state"], *leased(view)])
    return None


def leased(view):
    """Which person has the worker and why, as a list of one, or none when nobody has."""
    lease = view.get("lease")
    if not lease or lease["state"] != "held":
        return []
    why = ": %s" % lease["reason"] if lease["reason"] else ""
    return ["leased by %s until %s%s" % (lease["holder"], lease["until"], why)]


def not_attached(view):
    """Left undone by a worker that should be substantiated."""
    if view is None:
        return "not defined"
    if view["state"] == "substantiated" and view["attached"]:
        return None
    reason = view.get("last_error")
    words = "%s: %s" % (view["state"], reason) if reason else view["state"]
    # An order starts a worker once; what is quarantined is started again for builds only.
    return GivenUp(words) if view["state"] == "latent" and view.get("quarantine") else words


def not_gone(view):
    """Left undone by a worker that should be removed."""
    return None if view is None else "being removed, instance is %s" % view["state"]
