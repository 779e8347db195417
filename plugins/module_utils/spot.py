# Copyright: The Hostler developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A spot notice for a worker of this machine.

A notice comes from the metadata service at 169.254.169.254. The drill starts a permanent worker's
agent in a network of its own, where that address is a stand-in's, and the hub is reached by its Unix
socket: neither the machine's network nor its other agents see anything of it.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import time

from ansible_collections.hostler.fleet.plugins.module_utils import processes, waiting
from ansible_collections.hostler.fleet.plugins.module_utils.errors import NotFound
from ansible_collections.hostler.fleet.plugins.module_utils.faults import START_S, Fault

WORKER = "fire-drill-spot"
LEFT_S = 120
# The agent polls every 5 s, and finishes what runs.
LEAVES_S = 60

# Runs inside the new network, with the directory and the agent's command as arguments.
STAND_IN = r"""
import http.server, os, subprocess, sys, threading, time
notice, command = sys.argv[1], sys.argv[2:]
for words in ("link set lo up", "addr add 169.254.169.254/32 dev lo"):
    subprocess.run(["ip", *words.split()], check=True)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_PUT(self):
        self.answer(b"token")
    def do_GET(self):
        if os.path.exists(notice):
            with open(notice, "rb") as file:
                self.answer(file.read())
        else:
            self.send_error(404)
    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *arguments):
        return None
server = http.server.ThreadingHTTPServer(("169.254.169.254", 80), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
sys.exit(subprocess.run(command).returncode)
"""


class SpotNotice(Fault):
    """A machine is about to be taken away: its build ends there, and it gets no other."""

    needs_agent = False
    needs_throw_away = True

    def __init__(self, scene, agent):
        super().__init__(scene, agent)
        self._home = scene.throw_away and os.path.join(scene.throw_away, "spot")

    def also_why_not(self):
        if os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "ip"))):
            return "a network for the notice takes root, unshare and ip"
        tried = subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False)
        if tried.returncode != 0:
            return "a network for the notice: %s" % tried.stderr.decode("utf-8", "replace").strip()
        if not os.path.exists(self._socket):
            return "the hub has no Unix socket for agents; the directory's name may be too long"
        return None

    def prepare(self):
        """Start the worker; its agent must be attached before there is a notice."""
        password = secrets.token_urlsafe(24)
        definition = {"name": WORKER, "driver": "permanent", "password": password}
        body = {"workers": [definition], "dry_run": False}
        self.scene.client.post("/workers/define", body)
        config = self._write(password)
        python = os.path.join(os.path.dirname(self.scene.executable), "python")
        run = [python, "-m", "hostler_agent", "run", "--config", config]
        network = ["unshare", "--net", python, "-c", STAND_IN, self._notice]
        with open(os.path.join(self._home, "log"), "wb") as log:
            agent = subprocess.Popen(
                network + run,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._home,
                start_new_session=True,
            )
        self._process = (agent.pid, processes.start_time(agent.pid))
        self._agent = agent
        return waiting.wait_for(self.scene.client, [WORKER], not_attached, START_S).get(WORKER)

    def harm(self):
        end = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + LEFT_S))
        with open(self._notice + ".new", "w", encoding="ascii") as file:
            json.dump({"action": "terminate", "time": end}, file)
        os.replace(self._notice + ".new", self._notice)

    def during(self):
        try:
            self._agent.wait(LEAVES_S)
        except subprocess.TimeoutExpired:
            return [], ["the agent did not leave within %d s of its notice" % LEAVES_S]
        return [], []

    def undo(self):
        """By what shows that they are ours: the switch was there before the worker was."""
        processes.kill_all(self._home)
        try:
            self.scene.client.post(
                "/workers/remove", {"names": [WORKER], "force": True, "dry_run": False}
            )
        except NotFound:
            return

    @property
    def _socket(self):
        return os.path.join(self.scene.state_dir, "agents", "hub.sock")

    @property
    def _notice(self):
        return os.path.join(self._home, "notice")

    def _write(self, password):
        os.makedirs(self._home, mode=0o700)
        secret, config = (os.path.join(self._home, name) for name in ("secret", "agent.json"))
        content = {
            "hub": "ws://localhost/api/v1/agents/connect",
            "hub_socket": self._socket,
            "name": WORKER,
            "workdir": os.path.join(self._home, "work"),
            "token_file": secret,
            "interruptions": "ec2",
        }
        for path, text in ((secret, password), (config, json.dumps(content))):
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(text)
        return config


def not_attached(view):
    """A permanent worker has no instance that the hub starts."""
    return None if view and view["attached"] else "its agent is not attached"
