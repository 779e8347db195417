# Copyright: The Hostler developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Probe builds, and a witness who counts how often each of them really runs.

Every process of a probe build holds a connection to the witness, so that two runs at a time, a run
that the hub does not know of, and a process that outlives its build are all seen here, whatever the
hub and the agent say. The build leaves a daemon behind, which must die with it.
"""

from __future__ import annotations

import socketserver
import threading
import time
import uuid

from ansible_collections.hostler.fleet.plugins.module_utils.errors import HubError, NotFound

TERMINAL = ("success", "failure", "exception", "cancelled")
LONGEST_POLL_S = 5.0
RETRIES = 20
DAEMON_S = 600


class Witness(object):
    """Listens on the loopback. runs, alive and most (at a time) are counts by a build's word."""

    def __init__(self):
        self.runs, self.alive, self.most = {}, {}, {}
        self._changed = threading.Condition()
        witness = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                witness.hear(self.rfile)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            block_on_close = False

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]

    def __enter__(self):
        thread = threading.Thread(target=self._server.serve_forever, args=[0.05], name="witness")
        thread.daemon = True
        thread.start()
        return self

    def __exit__(self, *error):
        self._server.shutdown()
        self._server.server_close()

    def hear(self, file):
        """One run, from its first word until its last process has ended."""
        word = file.readline(100).decode("ascii", "replace").strip()
        self._count(word, 1)
        try:
            while file.read(1024):
                pass
        except OSError:
            pass  # a killed process's connection may end like this too
        self._count(word, -1)

    def wait(self, is_met, deadline_s):
        """Wait until is_met(witness), at most deadline_s seconds; whether it came to that."""
        with self._changed:
            return self._changed.wait_for(lambda: is_met(self), deadline_s)

    def _count(self, word, change):
        with self._changed:
            self.alive[word] = self.alive.get(word, 0) + change
            if change > 0:
                self.runs[word] = self.runs.get(word, 0) + 1
            self.most[word] = max(self.most.get(word, 0), self.alive[word])
            self._changed.notify_all()


class Probe(object):
    """A build that is submitted to see what becomes of it. witness is None where its processes cannot
    reach this one.
    """

    def __init__(self, client, witness, seconds, worker=None, command=None, limits=None):
        self.word = "probe-%s" % uuid.uuid4().hex[:12]
        self.id = None
        self.view = None
        self._client = client
        self._witness = witness
        self._spec = {
            "name": "fire drill",
            "steps": [
                {"name": "probe", "command": command or ["bash", "-c", self._script(seconds)]}
            ],
            "retry": {"on_loss": RETRIES},
            "timeout_s": 600,
        }
        if worker:
            self._spec["requires"] = {"worker": worker}
        if limits:
            self._spec["limits"] = limits

    def submit(self):
        """Submit it; raises HubError when the hub does not accept it."""
        headers = {"Idempotency-Key": self.word}
        self.view = self._client.post_new("/builds", self._spec, headers)[0]
        self.id = self.view["id"]
        return self

    def submit_once(self):
        """The same without trying again when the hub is not ready."""
        self.view = self._client.post_once("/builds", self._spec)
        self.id = self.view["id"]

    def await_run(self, deadline_s):
        """Wait until a process of it runs; whether it came to that."""
        if self._witness is not None:
            return self._witness.wait(lambda one: one.alive.get(self.word, 0) > 0, deadline_s)
        self._poll(lambda view: view["state"] != "queued", deadline_s)
        return self.view["state"] == "running"

    def await_end(self, deadline_s):
        """Wait until it has a result, also while the hub does not answer; the build's last view."""
        self._poll(lambda view: view["state"] in TERMINAL, deadline_s)
        return self.view

    def cancel(self):
        """Leave no build of ours behind when the drill is broken off."""
        if self.id is not None and self.view is not None and self.view["state"] not in TERMINAL:
            self._client.post("/builds/%s/cancel" % self.id, {"reason": "the fire drill ends"})

    def faults(self, deadline_s):
        """What must not have become of it, a sentence each. Call it when it has ended."""
        found = []
        if self.view is None or self.view["state"] != "success":
            state = self.view and (self.view["result_text"] or self.view["state"])
            found.append("lost build: %s ended as %s" % (self.id, state or "unknown to the hub"))
        if self._witness is None or self.view is None:
            return found
        if self._witness.most.get(self.word, 0) > 1:
            found.append("double run: %s ran twice at a time" % self.id)
        runs = self._witness.runs.get(self.word, 0)
        if runs > self.view["attempts"]:
            counts = (self.id, runs, self.view["attempts"])
            found.append("double run: %s ran %d times in %d attempts" % counts)
        if not self._witness.wait(lambda one: not one.alive.get(self.word), deadline_s):
            found.append("leak: processes of %s outlive it" % self.id)
        return found

    def _script(self, seconds):
        if self._witness is None:
            return "sleep %s" % seconds
        return (
            "exec 3<>/dev/tcp/127.0.0.1/%d; echo %s >&3; setsid sleep %d >/dev/null 2>&1 & sleep %s"
            % (self._witness.port, self.word, DAEMON_S, seconds)
        )

    def _poll(self, is_met, deadline_s):
        end = time.monotonic() + deadline_s
        while not is_met(self.view) and time.monotonic() < end:
            left_s = max(0.1, min(LONGEST_POLL_S, end - time.monotonic()))
            # The hub holds the request until the build ends; a start is looked for more often.
            self._look(left_s if self._witness is not None else min(left_s, 0.2))
            if self.view is None:
                return

    def _look(self, wait_s):
        try:
            self.view = self._client.wait_get("/builds/" + self.id, wait_s)
        except NotFound:
            self.view = None
        except HubError:
            time.sleep(0.2)  # it is down, or on its way up
