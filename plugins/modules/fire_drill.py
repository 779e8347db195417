#!/usr/bin/python
# Copyright: The Hostler developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: fire_drill
short_description: Do a fleet harm, undo it, and say whether anything was lost
version_added: 0.1.0
description:
  - Submits a probe build, does one kind of harm while it runs, undoes the harm, submits another, and checks that no
    build was lost or ran twice at a time, that no process is left, that no incident is left open, and how long it took.
  - A process apart from the module undoes the harm when the module or the play dies, and at the latest after a time.
  - The processes that are harmed are this machine's own, so the module runs on the hub's machine. What cannot be done
    here is skipped, and the result says why.
  - Whether a fleet may be drilled at all is decided by the play, C(playbooks/fire_drill.yml).
extends_documentation_fragment:
  - hostler.fleet.hub
attributes:
  check_mode:
    support: full
    description: Nothing is harmed; the result says that the drill would be held.
  diff_mode:
    support: none
    description: Nothing stays changed.
  platform:
    support: full
    platforms: linux
    description: There must be a C(/proc).
options:
  drill:
    description:
      - V(freeze) stops the agent, V(cut) drops the packets of its connection, V(hub) kills the hub with SIGKILL.
      - V(disk) fills the fleet's file system, V(memory) runs a build that takes more than it may, V(spot) gives a
        worker a spot notice, V(clock) sets the hub's clock an hour ahead and back. These need O(throw_away).
    type: str
    choices: [freeze, cut, disk, memory, hub, spot, clock]
    required: true
  names:
    description: The workers that may be harmed. The first of driver C(local) that is active is.
    type: list
    elements: str
    required: true
  marked:
    description: All workers that are marked for drills. V(hub) is held only where the hub has no others.
    type: list
    elements: str
    default: []
  throw_away:
    description: The directory of a fleet that M(hostler.fleet.throw_away) has made.
    type: path
  hub_executable:
    description: The program C(hostler-hub), which starts a killed hub again.
    type: path
    required: true
  duration_s:
    description: How long the harm lasts.
    type: float
    default: 8
  deadline_s:
    description: Seconds within which everything must have recovered after the harm.
    type: float
    default: 120
author:
  - The Hostler developers (@hostler)
"""

EXAMPLES = r"""
- name: Freeze an agent
  hostler.fleet.fire_drill:
    drill: freeze
    names: [local-1]
    hub_state_dir: /var/lib/hostler
    hub_executable: /opt/hostler/bin/hostler-hub
"""

RETURN = r"""
drill:
  description: What came of it.
  returned: success
  type: dict
  contains:
    drill:
      description: Which drill it was.
      type: str
      returned: always
    worker:
      description: The worker that was harmed.
      type: str
      returned: always
    result:
      description: V(passed), V(failed) or V(skipped).
      type: str
      returned: always
    what:
      description: What was wrong or why it was skipped, in sentences.
      type: str
      returned: always
    builds:
      description: How many probe builds the hub accepted.
      type: int
      returned: always
    attempts:
      description: In how many attempts the first of them ended.
      type: int
      returned: always
    harmed_s:
      description: How long the harm lasted, in seconds.
      type: float
      returned: always
    recovery_s:
      description: Seconds from the end of the harm until a new build had ended and the worker was well.
      type: float
      returned: always
  sample: {drill: freeze, worker: local-1, result: passed, what: "", builds: 2, attempts: 1, harmed_s: 8.0, recovery_s: 1.2}
"""

import contextlib
import os
import signal
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hostler.fleet.plugins.module_utils import (
    batch,
    dead_mans_switch,
    faults,
    hub,
    spot,
    waiting,
)
from ansible_collections.hostler.fleet.plugins.module_utils.errors import HubError
from ansible_collections.hostler.fleet.plugins.module_utils.probe import Probe, Witness

FAULTS = {
    "freeze": faults.Freeze,
    "cut": faults.Cut,
    "disk": faults.Disk,
    "memory": faults.Memory,
    "hub": faults.KillHub,
    "spot": spot.SpotNotice,
    "clock": faults.Clock,
}
# What may take longest beside the harm itself: starting a worker, and waiting for it to leave.
SLACK_S = 2 * faults.START_S


class CannotBeHeld(Exception):
    """Why the drill is skipped."""


class WentWrong(Exception):
    """What went wrong with the fleet before it was harmed."""


def choose(client, params):
    """The first worker whose agent could be here, by name; else the first of all."""
    views = batch.query(client, params["names"])[0]
    local = [one for one in views if one["driver"] == "local" and one["mode"] == "active"]
    if not local:
        raise CannotBeHeld(
            "no active worker of driver local: other drivers' machines are not reached from here"
        )
    return local[0]["name"]


def start(client, name, deadline_s):
    """Have the worker's agent attached; its pid, or None when it is not on this machine."""
    client.post("/workers/substantiate", {"names": [name], "dry_run": False})
    left = waiting.wait_for(client, [name], waiting.not_attached, deadline_s)
    if left:
        raise WentWrong("%s did not start: %s" % (name, left[name]))
    return faults.agent_of(batch.query(client, [name])[0][0]["instance"])


def not_well(view):
    """What is wrong with a worker after the harm, or None."""
    if view is None:
        return "not defined any more"
    if view["quarantine"]:
        return "in quarantine: %s" % view["quarantine"]["reason"]
    if view["missing"]:
        return "missing: its agent is not attached"
    well = view["state"] == "latent" or (view["state"] == "substantiated" and view["attached"])
    return None if well else "%s, attached: %s" % (view["state"], view["attached"])


def open_incidents(client, names):
    found = client.get("/incidents", {"open": "true", "limit": 100})["items"]
    return {one["id"]: one for one in found if one["worker"] in names}


class Drill(object):
    """One drill, from the probe before it to the checks after it."""

    def __init__(self, client, params, witness, play):
        self._client = client
        self._params = params
        self._witness = witness
        self._play = play
        self._probes = []
        self._problems = []
        self.row = {
            "drill": params["drill"],
            "worker": None,
            "result": "passed",
            "what": "",
            "builds": 0,
            "attempts": None,
            "harmed_s": None,
            "recovery_s": None,
        }

    def hold(self):
        """Raises CannotBeHeld, WentWrong and HubError; NotUndone when the harm may still be there."""
        name = choose(self._client, self._params)
        self.row["worker"] = name
        agent = start(self._client, name, self._params["deadline_s"])
        scene = faults.Scene(self._client, self._params, name)
        fault = FAULTS[self._params["drill"]](scene, agent)
        why_not = fault.why_not()
        if why_not:
            raise CannotBeHeld(why_not)
        before = open_incidents(self._client, [name])
        limit_s = self._params["duration_s"] + SLACK_S
        with dead_mans_switch.DeadMansSwitch(fault.undo, limit_s, self._play, scene.lock):
            self._harm(fault, name)
            harmed_until = time.monotonic()
        self._check(name, before, harmed_until)

    def _harm(self, fault, name):
        first = Probe(self._client, self._witness, 3, worker=name)
        if hasattr(fault, "prepare"):
            wrong = fault.prepare()
            if wrong:
                raise WentWrong("%s: %s" % (spot.WORKER, wrong))
            # Its processes are in another network and cannot reach the witness.
            first = Probe(self._client, None, 8, worker=spot.WORKER)
        self._probes.append(first.submit())
        if not first.await_run(self._params["deadline_s"]):
            raise WentWrong("the probe build did not begin: %s" % first.view.get("why"))
        began = time.monotonic()
        fault.harm()
        more, problems = fault.during()
        self._probes += more
        self._problems += problems
        self.row["harmed_s"] = round(time.monotonic() - began, 1)

    def _check(self, name, before, began):
        deadline_s = self._params["deadline_s"]
        after = Probe(self._client, self._witness, 0, worker=name)
        self._probes.append(after)
        self._submit_when_ready(after, began + deadline_s)
        for probe in self._probes:
            probe.await_end(max(0.0, began + deadline_s - time.monotonic()))
        left = waiting.wait_for(self._client, [name], not_well, deadline_s)
        self.row["recovery_s"] = round(time.monotonic() - began, 1)
        self._problems += ["%s is not well: %s" % pair for pair in left.items()]
        for probe in self._probes:
            self._problems += probe.faults(deadline_s)
        self._problems += [
            "incident left open: %s" % one["reason"]
            for key, one in open_incidents(self._client, [name]).items()
            if key not in before
        ]
        self.row["attempts"] = self._probes[0].view and self._probes[0].view["attempts"]

    def _submit_when_ready(self, probe, end):
        """A hub that has just been started, or whose disk was full, may take a moment."""
        while time.monotonic() < end:
            with contextlib.suppress(HubError):
                probe.submit()
                return
            time.sleep(0.1)
        probe.submit()

    def finish(self):
        """Leave no build behind, and say what came of it."""
        for probe in self._probes:
            self._cancel(probe)
        self.row["builds"] = len([one for one in self._probes if one.id])
        skipped = [one for one in self._problems if isinstance(one, faults.Skipped)]
        if self._problems:
            self.row["result"] = "skipped" if skipped == self._problems else "failed"
            self.row["what"] = "; ".join(self._problems)

    def _cancel(self, probe):
        try:
            probe.cancel()
        except HubError as error:
            self._problems.append("%s could not be cancelled: %s" % (probe.id, error.message))

    def note(self, problem):
        self._problems.append(problem)


def work(module, client):
    params = module.params
    if module.check_mode:
        module.exit_json(changed=False, msg="drill %s would be held" % params["drill"])
    play = dead_mans_switch.find_play(os.getpid())
    with Witness() as witness:
        drill = Drill(client, params, witness, play)
        try:
            drill.hold()
        except CannotBeHeld as why:
            drill.note(faults.Skipped(why))
        except (HubError, WentWrong) as error:
            drill.note(str(error))
        except dead_mans_switch.NotUndone as failure:
            module.fail_json(msg="%s: %s" % (params["drill"], failure))
        finally:
            drill.finish()
    module.exit_json(changed=False, drill=drill.row)


def leave(*_signal):
    """What was begun is undone on the way out: at the play's end, and at Ctrl-C."""
    raise SystemExit(1)


def main():
    signal.signal(signal.SIGTERM, leave)
    module = AnsibleModule(
        argument_spec=hub.argument_spec(
            drill={"type": "str", "choices": list(FAULTS), "required": True},
            names={"type": "list", "elements": "str", "required": True},
            marked={"type": "list", "elements": "str", "default": []},
            throw_away={"type": "path"},
            hub_executable={"type": "path", "required": True},
            duration_s={"type": "float", "default": 8},
            deadline_s={"type": "float", "default": 120},
        ),
        supports_check_mode=True,
    )
    hub.run(module, work)


if __name__ == "__main__":
    main()
