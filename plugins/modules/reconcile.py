#!/usr/bin/python
# Copyright: The Hostler developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: reconcile
short_description: Find and clean up instances that the fleet does not know of
version_added: 0.2.0
description:
  - Has the hub ask every provider for the instances that carry its mark and compare them with its own ledger.
  - Orphans are destroyed. A worker whose instance is gone without the hub's doing learns it, so that it can start anew.
  - A hub that was restored from a backup is in hold, it starts and destroys nothing. Given O(confirmed), without
    O(drivers), this module ends the hold and settles what was found.
  - The hub does the same by itself every few minutes; this module does it now, tells what it found, and can confirm what
    the hub holds back for a person's word.
extends_documentation_fragment:
  - hostler.fleet.hub
attributes:
  check_mode:
    support: full
    description: The providers are asked and the differences told, nothing is destroyed.
  diff_mode:
    support: full
    description: One line for each instance that goes, with its age and, given its price, what it has cost.
options:
  drivers:
    description: Ask only these drivers.
    type: list
    elements: str
  confirmed:
    description:
      - Also do what the hub holds back. It destroys instances that its ledger has never heard of, which may belong to a
        second hub that runs on a copy of the same database, and gives up many workers at once.
      - With O(forget), that somebody has looked and the instances are gone.
    type: bool
    default: false
  forget:
    description:
      - Workers to free although their instance could not be proven gone, since the provider no longer answers for it.
        Needs O(confirmed) and O(reason).
      - Should such an instance turn up again, it is an orphan like any other.
    type: list
    elements: str
    default: []
  reason:
    description: Why O(forget) is right, for the people who wonder later.
    type: str
  prices:
    description: What an instance costs per hour, by driver. Only used to tell what orphans have cost.
    type: dict
    default: {}
  currency:
    description: What stands before an amount.
    type: str
    default: $
  fail_on_unanswered:
    description: Fail, after all else is done, when a provider did not answer.
    type: bool
    default: true
author:
  - The Hostler developers (@hostler)
"""

EXAMPLES = r"""
- name: Tell what leaks (with --check --diff)
  hostler.fleet.reconcile:
    prices: {ec2: 0.2136}

- name: Clean up after a database was restored from a backup
  hostler.fleet.reconcile:
    confirmed: true

- name: Free a worker whose host was sold
  hostler.fleet.reconcile:
    forget: [rack-17]
    confirmed: true
    reason: the host was sold
"""

RETURN = r"""
findings:
  description: The instances in which a provider and the hub differ.
  returned: success
  type: list
  elements: dict
  contains:
    driver:
      description: Whose instance it is.
      type: str
      returned: always
    kind:
      description:
        - V(orphan) should have ended. V(unknown) was never heard of. V(absent) should be there and is not listed.
          V(unrecorded) was created, but the answer was lost. V(spare) is a stopped machine that its worker keeps no
          longer. V(copy) is somebody else's and only carries an instance's mark.
      type: str
      returned: always
    action:
      description:
        - "What is done about it, V(destroy), V(give_up), V(adopt), V(wait) for a second look, V(hold), or only
          V(report): it is not touched."
      type: str
      returned: always
    instance:
      description: The id of the instance.
      type: str
      returned: always
    epoch:
      description: The instance's epoch.
      type: int
      returned: always
    worker:
      description: Whose instance it is or was, if that is known.
      type: str
      returned: always
    name:
      description: What the provider calls it.
      type: str
      returned: always
    created_at:
      description: When it was created, if the provider tells.
      type: str
      returned: always
    age_s:
      description: Seconds since it was created, if the provider tells.
      type: float
      returned: always
    reason:
      description: Why this is done about it.
      type: str
      returned: always
    done:
      description: Whether it was done.
      type: bool
      returned: always
    error:
      description: Why it could not be done.
      type: str
      returned: always
    cost:
      description: What it has cost at the price given.
      type: float
      returned: when O(prices) names its driver, the age is known, and it was running (a V(spare) costs its volumes only)
  sample: [{driver: ec2, kind: orphan, action: destroy, name: i-0abc, worker: build-7, age_s: 691200.0, cost: 41.01, done: true}]
summary:
  description: A line per finding and per place that did not answer, for people.
  returned: success
  type: list
  elements: str
  sample: ["destroy orphan: i-0abc of build-7, 8 d, $41"]
checked:
  description:
    - For each driver, how many instances it listed and how many the hub expected, and how many stopped machines are
      rightly there for the next instances of their workers.
  returned: success
  type: list
  elements: dict
  contains:
    driver:
      description: The driver.
      type: str
      returned: always
    listed:
      description: How many instances its provider listed.
      type: int
      returned: always
    expected:
      description: How many the hub expected.
      type: int
      returned: always
    spares:
      description: How many stopped machines are there for their workers' next instances.
      type: int
      returned: always
  sample: [{driver: ec2, listed: 14, expected: 11, spares: 2}]
unanswered:
  description: Places whose instances could not be listed, and why.
  returned: success
  type: list
  elements: dict
  contains:
    driver:
      description: The driver.
      type: str
      returned: always
    place:
      description: The host, daemon or region; none if no place of the driver answered.
      type: str
      returned: always
    reason:
      description: Why it did not answer.
      type: str
      returned: always
  sample: []
hold:
  description: Why the hub, as after a restore, ends nothing before that is confirmed; null if it is in no hold.
  returned: success
  type: str
  sample: null
forgotten:
  description: Workers that were freed by O(forget).
  returned: success
  type: list
  elements: str
  sample: []
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hostler.fleet.plugins.module_utils import hub

ACTING = ("destroy", "give_up", "adopt")
WORDS = {
    "give_up": "give up",
    "adopt": "adopt",
    "destroy": "destroy",
    "wait": "wait",
    "hold": "hold",
    "report": "leave",
}
# Listing takes as long as the slowest provider does; the hub has deadlines of its own.
PATIENCE_S = 600


def age(seconds):
    """Seconds in the one unit a person would choose."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return "%d %s" % (seconds // length, unit)
    return "%d s" % seconds


def priced(finding, prices):
    """The finding, with its cost where that is known."""
    price = prices.get(finding["driver"])
    if price is None or finding["age_s"] is None or finding["kind"] == "spare":
        return finding  # the price is that of a machine which runs
    return dict(finding, cost=round(finding["age_s"] / 3600 * price, 2))


def line(finding, currency):
    """What a person reads of a finding."""
    words = "%s %s: %s" % (WORDS[finding["action"]], finding["kind"], finding["name"])
    if finding["worker"]:
        words += " of %s" % finding["worker"]
    if finding["age_s"] is not None:
        words += ", %s" % age(finding["age_s"])
    if "cost" in finding:
        words += ", %s%.0f" % (currency, finding["cost"])
    if finding["error"]:
        words += " (failed: %s)" % finding["error"]
    elif finding["action"] not in ACTING:
        words += " (%s)" % finding["reason"]
    return words


def silence(place):
    """What a person reads of a place that did not answer."""
    words = "no answer from %s" % place["driver"]
    if place.get("place"):
        words += ", %s" % place["place"]
    return "%s: %s" % (words, place["reason"])


def check(module):
    """Fail for options that make no sense."""
    for driver, price in module.params["prices"].items():
        if isinstance(price, bool) or not isinstance(price, (int, float)) or price < 0:
            module.fail_json(msg="prices: %s: %r is no price per hour" % (driver, price))
    if module.params["forget"] and not (module.params["confirmed"] and module.params["reason"]):
        module.fail_json(
            msg="forget needs confirmed: true, which says that somebody has looked, and a reason"
        )


def forget(module, client):
    if not module.params["forget"]:
        return []
    body = {
        "names": module.params["forget"],
        "reason": module.params["reason"],
        "confirmed": True,
        "dry_run": module.check_mode,
    }
    results = client.post("/workers/forget", body)["results"]
    return [each["name"] for each in results if each["changed"]]


def diff(findings, currency, forgotten):
    acting = [line(one, currency) for one in findings if one["action"] in ACTING]
    acting += ["forget the instance of %s" % name for name in forgotten]
    return {"before": "", "after": "".join("%s\n" % each for each in acting)}


def work(module, client):
    check(module)
    forgotten = forget(module, client)
    body = {
        "drivers": module.params["drivers"],
        "dry_run": module.check_mode,
        "confirmed": module.params["confirmed"],
    }
    told = client.post("/reconcile", body)
    silent = told["unanswered"]
    findings = [priced(one, module.params["prices"]) for one in told["findings"]]
    currency = module.params["currency"]
    acting = [one for one in findings if one["action"] in ACTING]
    answer = {
        "changed": bool(forgotten or acting),
        "hold": told.get("hold"),
        "findings": findings,
        "summary": [line(one, currency) for one in findings] + [silence(one) for one in silent],
        "checked": told["checked"],
        "unanswered": silent,
        "forgotten": forgotten,
    }
    if module._diff:  # noqa: SLF001  (Ansible has no other way to ask)
        answer["diff"] = diff(findings, currency, forgotten)
    complaints = [one["error"] for one in findings if one["error"]]
    if module.params["fail_on_unanswered"]:
        complaints += [silence(one) for one in silent]
    if complaints:
        module.fail_json(msg="not all is settled: %s" % "; ".join(complaints), **answer)
    module.exit_json(**answer)


def main():
    module = AnsibleModule(
        argument_spec=hub.argument_spec(
            drivers={"type": "list", "elements": "str"},
            confirmed={"type": "bool", "default": False},
            forget={"type": "list", "elements": "str", "default": []},
            reason={"type": "str"},
            prices={"type": "dict", "default": {}},
            currency={"type": "str", "default": "$"},
            fail_on_unanswered={"type": "bool", "default": True},
        ),
        supports_check_mode=True,
    )
    module.params["hub_timeout"] = max(module.params["hub_timeout"], PATIENCE_S)
    hub.run(module, work)


if __name__ == "__main__":
    main()
