# Copyright: The Hostler developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The harm that a fire drill does to a hub and to agents of this machine, and how it is undone.

undo() runs in a process that was forked before harm() (see dead_mans_switch.py): it may use what was
known by then and what it finds, and it may run when no harm was done.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from urllib.parse import urlsplit

from ansible_collections.hostler.fleet.plugins.module_utils import processes
from ansible_collections.hostler.fleet.plugins.module_utils.errors import HubError
from ansible_collections.hostler.fleet.plugins.module_utils.probe import Probe

START_S = 120
JUMP_S = 3600
HOG_MB = 64
PIECE = bytes(1 << 20)
UNIT = "/hostler-hub"  # as the role hub names it; its manager starts a killed hub again


class Scene(object):
    """Where a drill is held: the hub, the worker it is about, and what the play has made for it."""

    def __init__(self, client, params, worker):
        self.client = client
        self.worker = worker
        self.state_dir = params["hub_state_dir"] and os.path.realpath(params["hub_state_dir"])
        self.throw_away = params["throw_away"] and os.path.realpath(params["throw_away"])
        self.executable = params["hub_executable"]
        self.duration_s = params["duration_s"]
        self.marked = frozenset(params["marked"])

    @property
    def lock(self):
        """What a throw-away fleet's end waits for; see dead_mans_switch.py."""
        return self.throw_away and lock_of(self.throw_away)

    @property
    def clock_file(self):
        return os.path.join(self.throw_away, "clock")


class Fault(object):
    """One kind of harm. It lasts duration_s unless during() takes longer."""

    needs_agent = True
    needs_throw_away = False

    def __init__(self, scene, agent):
        self.scene = scene
        self.agent = agent  # the pid of the worker's agent on this machine, or None

    def why_not(self):
        """Why this drill cannot be held here, or None."""
        if self.needs_throw_away and not self.scene.throw_away:
            return "only on a throw-away fleet (-e throw_away=true), as it would harm its machine"
        if self.needs_agent and self.agent is None:
            return "%s: no agent of driver local on this machine" % self.scene.worker
        return self.also_why_not()

    def also_why_not(self):
        return None

    def harm(self):
        raise NotImplementedError

    def undo(self):
        raise NotImplementedError

    def during(self):
        """What happens while the harm lasts; returns (further probes, problems)."""
        time.sleep(self.scene.duration_s)
        return [], []


class Freeze(Fault):
    """The agent is stopped, as on a machine that swaps or a virtual one that is suspended."""

    def __init__(self, scene, agent):
        super().__init__(scene, agent)
        self._process = agent and (agent, processes.start_time(agent))

    def also_why_not(self):
        return may_signal(self.agent)

    def harm(self):
        os.kill(self.agent, signal.SIGSTOP)

    def undo(self):
        # The hub may have replaced it meanwhile: the pid may be somebody else's.
        if processes.start_time(self._process[0]) == self._process[1]:
            os.kill(self._process[0], signal.SIGCONT)


class Cut(Fault):
    """The agent's connection carries nothing any more, and neither side is told."""

    def __init__(self, scene, agent):
        super().__init__(scene, agent)
        self._ports = connected_ports(agent) if agent else []

    def also_why_not(self):
        if os.geteuid() != 0 or shutil.which("iptables") is None:
            return "dropping packets takes root and iptables"
        if not self._ports:
            return "the agent has no IPv4 connection (with TLS it uses the hub's Unix socket)"
        listed = subprocess.run(["iptables", "-S", "OUTPUT"], capture_output=True, check=False)
        if listed.returncode != 0:
            return "iptables says: %s" % listed.stderr.decode("utf-8", "replace").strip()
        return None

    def harm(self):
        for rule in self._rules():
            iptables("-I", rule).check_returncode()

    def undo(self):
        for rule in self._rules():
            while iptables("-C", rule).returncode == 0:
                iptables("-D", rule).check_returncode()

    def _rules(self):
        """Both directions of each connection; it is of this machine, so both leave here."""
        for port in self._ports:
            for side in ("--sport", "--dport"):
                yield ["OUTPUT", "-p", "tcp", side, str(port), "-j", "DROP"]


class Disk(Fault):
    """The file system that the hub and its instances are on is full."""

    needs_throw_away = True

    def also_why_not(self):
        if not os.path.ismount(self.scene.throw_away):
            return "the throw-away fleet has no file system of its own, which takes root"
        return None

    @property
    def _ballast(self):
        return os.path.join(self.scene.throw_away, "ballast")

    def harm(self):
        with open(self._ballast, "wb", buffering=0) as file:
            try:
                while True:
                    file.write(PIECE)
            except OSError:
                return  # no space is left, as it should be

    def undo(self):
        if os.path.exists(self._ballast):
            os.unlink(self._ballast)

    def during(self):
        """A build that is accepted meanwhile must be kept; refusing it is right too."""
        time.sleep(self.scene.duration_s / 2.0)
        probe = Probe(self.scene.client, None, 0)
        try:
            probe.submit_once()
        except HubError as refused:
            if refused.status not in (503, 507):
                return [], ["a full disk is answered by: %s" % refused.message]
            probe = None
        time.sleep(self.scene.duration_s / 2.0)
        return [probe] if probe else [], []


class Memory(Fault):
    """A build beside the probe takes more memory than it may."""

    needs_throw_away = True

    def harm(self):
        self._hog = Probe(
            self.scene.client,
            None,
            0,
            worker=self.scene.worker,
            command=["bash", "-c", "head -c 4G /dev/zero | tail"],
            limits={"memory_mb": HOG_MB},
        ).submit()

    def undo(self):
        """Nothing: the hog is bounded by its limit, and ends with it."""

    def during(self):
        view = self._hog.await_end(START_S)
        if view is None or view["state"] == "success":
            return [], ["a build took 4 GiB though it may have %d MiB" % HOG_MB]
        if view["steps"][0]["failure_reason"] != "oom_killed":
            return [], [Skipped("memory was not what ended the hog: %s" % view["result_text"])]
        return [], []


class KillHub(Fault):
    """The hub is killed, and gone for a while."""

    needs_agent = False

    def __init__(self, scene, agent):
        super().__init__(scene, agent)
        self._pid, self._url = read_run_file(scene.state_dir)
        self._environ = environ_of(self._pid)
        self._is_service = UNIT in "".join(processes.read(self._pid or 0, "cgroup"))

    def also_why_not(self):
        if self._pid is None:
            return "the hub is no process of this machine"
        others = set(names_of_all(self.scene.client)) - self.scene.marked
        if others and not self.scene.throw_away:
            return "the hub has workers that are not marked: %s" % ", ".join(sorted(others)[:5])
        return may_signal(self._pid)

    def harm(self):
        os.kill(self._pid, signal.SIGKILL)

    def undo(self):
        """Start it again as it was; where a service manager does, that is waited for."""
        if self._is_service:
            self._await_service()
            return
        parts = urlsplit(self._url)
        start = [self.scene.executable, "start", "--state-dir", self.scene.state_dir]
        where = ["--host", self._environ.get("HOSTLER_HOST", parts.hostname)]
        where += ["--port", str(parts.port)]
        subprocess.run(
            start + where,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
        )

    def _await_service(self):
        end = time.monotonic() + START_S
        status = [self.scene.executable, "status", "--state-dir", self.scene.state_dir]
        while subprocess.run(status, capture_output=True, check=False).returncode != 0:
            if time.monotonic() > end:
                raise RuntimeError("the service manager has not started the hub again")
            time.sleep(0.5)


class Clock(Fault):
    """The hub's clock is set an hour ahead, and back again."""

    needs_agent = False
    needs_throw_away = True

    def also_why_not(self):
        if not os.path.exists(self.scene.clock_file):
            return "libfaketime is not installed, and the machine's own clock is not for drills"
        return None

    def harm(self):
        write_clock(self.scene.clock_file, JUMP_S)

    def undo(self):
        write_clock(self.scene.clock_file, 0)

    def during(self):
        time.sleep(self.scene.duration_s)
        probe = Probe(self.scene.client, None, 0).submit()
        ahead = probe.view["submitted_at"] > time.strftime(
            "%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() + JUMP_S / 2.0)
        )
        return [probe], [] if ahead else [Skipped("the hub's clock did not follow libfaketime")]


class Skipped(str):
    """What was found out during a drill: that it proves nothing here."""

    __slots__ = ()


def lock_of(throw_away):
    return os.path.join(throw_away, "harm.lock")


def iptables(order, rule):
    # Others on this machine may hold its lock for a moment.
    return subprocess.run(["iptables", "-w", "10", order, *rule], capture_output=True, check=False)


def write_clock(path, ahead_s):
    """What libfaketime adds to the time; replaced as a whole, as the hub reads it at any moment."""
    with open(path + ".new", "w", encoding="ascii") as file:
        file.write("+%d\n" % ahead_s)
    os.replace(path + ".new", path)


def may_signal(pid):
    """Why a signal to the process cannot be sent, or None."""
    try:
        os.kill(pid, 0)
    except OSError as error:
        return "process %d: %s" % (pid, error.strerror)
    return None


def agent_of(instance):
    """The pid of the instance's agent, by the mark in its arguments; None when it is not here."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            words = processes.read(int(name), "cmdline")
            if "--mark" in words and any(":%s:" % instance in word for word in words):
                return int(name)
    return None


def connected_ports(pid):
    """The local ports of the process's established IPv4 connections."""
    own = set()
    try:
        for number in os.listdir("/proc/%d/fd" % pid):
            own.add(os.readlink("/proc/%d/fd/%s" % (pid, number)))
        with open("/proc/%d/net/tcp" % pid, encoding="ascii") as file:
            lines = [line.split() for line in file.readlines()[1:]]
    except OSError:
        return []
    # Local address, remote address, state (1: established), ..., inode.
    found = [line for line in lines if line[3] == "01" and "socket:[%s]" % line[9] in own]
    return sorted(int(line[1].rpartition(":")[2], 16) for line in found)


def read_run_file(state_dir):
    """(pid, url) of the hub that runs from the state directory; None for each when there is none."""
    if not state_dir:
        return None, None  # a hub elsewhere
    try:
        with open(os.path.join(state_dir, "hub.json"), encoding="utf-8") as file:
            run = json.load(file)
        return run["pid"], run["url"]
    except (OSError, ValueError, KeyError):
        return None, None


def environ_of(pid):
    """The environment that the process was started with; what is not ours to see is empty."""
    pairs = [one.partition("=") for one in processes.read(pid, "environ")] if pid else []
    return {name: value for name, _sign, value in pairs if name and name != "HOSTLER_READY_FD"}


def names_of_all(client):
    names, after = [], None
    while True:
        page = client.get("/workers", {"limit": 500, **({"after": after} if after else {})})
        names += [one["name"] for one in page["items"]]
        after = page["next"]
        if not after:
            return names
