"""What the collection's tests share: the farm of links on the path, and a stand-in for the hub.

The stand-in is a real HTTP server in a thread that answers as the REST contract says, with a list
of every request it saw. Tests against the real hub are in test_playbooks.py.
"""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from needs import needs

ROOT = Path(__file__).resolve().parents[2]
COLLECTIONS = ROOT / "collections"
if str(COLLECTIONS) not in sys.path:
    sys.path.insert(0, str(COLLECTIONS))

TOKEN = "stand-in-token-6f1c2a"


class StandIn:
    """Workers and builds in memory. `fail` is a list of (status, body) that the next requests get
    instead of an answer; `settle_after` is how many queries a worker takes to get where it goes."""

    def __init__(self):
        self.requests = []
        self.fail = []
        self.workers = {}
        self.builds = {}
        self.keys = {}
        self.logs = {}
        self.tokens = {}
        self.new_token = None
        self.refusals = []
        self.replies = {}  # what to answer to a POST to a path, as it is
        self.settle_after = 0
        self.next_result = "success"
        self.url = None

    def define(self, body):
        results = []
        for index, one in enumerate(body["workers"]):
            if one["name"] != one["name"].lower():
                raise Refused(422, f"{one['name']!r} is no worker name", f"/workers/{index}/name")
            known = self.workers.get(one["name"])
            after = {"driver_options": {}, "properties": {}, "labels": [], "max_builds": 1, **one}
            has_password = "password" in after
            after.pop("password", None)
            after["has_password"] = has_password
            before = known["definition"] if known else None
            changed = before != after
            results.append(
                {
                    "name": one["name"],
                    "changed": changed,
                    "created": known is None,
                    "before": before,
                    "after": after,
                }
            )
            if changed and not body["dry_run"]:
                self.workers[one["name"]] = {**(known or self.fresh(one["name"])), **view(after)}
        return results

    def fresh(self, name):
        return {
            "name": name,
            "mode": "active",
            "mode_reason": None,
            "mode_by": None,
            "mode_until": None,
            "isolation": None,
            "exposes_hub": False,
            "state": "latent",
            "attached": False,
            "instance": None,
            "epoch": 0,
            "quarantine": None,
            "missing": None,
            "last_error": None,
            "builds": [],
            "lease": None,
            "facts": {},
            "goal": None,
            "looks": 0,
        }

    def targets(self, body):
        """The names of those an order is about; of a selection only its driver counts here."""
        if "select" not in body:
            return body["names"]
        drivers = body["select"].get("driver")
        return sorted(
            name for name, one in self.workers.items() if not drivers or one["driver"] in drivers
        )

    def pick(self, names):
        for index, name in enumerate(names):
            if name not in self.workers:
                raise Refused(404, f"there is no worker {name!r}", f"/names/{index}")
        return [self.workers[name] for name in names]

    def order(self, body, goal):
        results = []
        for worker in self.pick(self.targets(body)):
            if goal == "substantiated" and worker["mode"] != "active":
                raise Refused(
                    409, f"{worker['name']} is {worker['mode']}; resume it first", "/names/0"
                )
            changed = worker["state"] != goal
            results.append({"name": worker["name"], "changed": changed, "state": worker["state"]})
            if not body["dry_run"]:
                worker.update(goal=goal, looks=0)
        return results

    def remove(self, body):
        results = []
        for name in self.targets(body):
            known = name in self.workers
            if known and self.workers[name]["builds"] and not body["force"]:
                raise Refused(409, f"{name} runs a build; wait, or force", "/names/0")
            results.append({"name": name, "changed": known, "state": "absent"})
            if not body["dry_run"]:
                self.workers.pop(name, None)
        return results

    def set_mode(self, body):
        results = []
        for worker in self.pick(self.targets(body)):
            before = worker["mode"]
            changed = before != body["mode"]
            results.append(
                {
                    "name": worker["name"],
                    "changed": changed,
                    "before": before,
                    "after": body["mode"],
                }
            )
            if not body["dry_run"]:
                worker.update(mode=body["mode"], mode_reason=body["reason"])
                if body["mode"] in ("draining", "stopped"):
                    worker.update(goal="latent", looks=0)
        return results

    def look(self, names):
        for worker in self.workers.values():
            if worker["goal"] and worker["looks"] >= self.settle_after:
                attached = worker["goal"] == "substantiated"
                worker.update(state=worker["goal"], goal=None, attached=attached)
            worker["looks"] += 1
        known = [self.workers[name] for name in names if name in self.workers]
        return {"items": known, "unknown": [name for name in names if name not in self.workers]}

    def submit(self, body, key):
        if key in self.keys:
            known, spec = self.keys[key]
            if spec != body:
                raise Refused(409, "the key belongs to another build", None)
            return 200, self.builds[known]
        wanted = body.get("requires", {}).get("worker")
        if wanted and wanted not in self.workers:
            raise Refused(422, f"no worker is called {wanted!r}", "/requires")
        build_id = f"01BUILD{len(self.builds):019d}"
        log = b"".join(b"line %d\n" % number for number in range(100))
        steps = []
        for index, step in enumerate(body["steps"]):
            self.logs[build_id, index] = log
            steps.append(
                {
                    "index": index,
                    "name": step["name"],
                    "state": "success",
                    "log_size_bytes": len(log),
                }
            )
        self.builds[build_id] = {
            "id": build_id,
            "name": body.get("name"),
            "state": "queued",
            "worker": wanted,
            "why": "local-1 is paused" if self.next_result == "queued" else None,
            "result_text": f"it was a {self.next_result}",
            "steps": steps,
            "spec": body,
        }
        self.keys[key] = (build_id, body)
        return 201, self.builds[build_id]


class Refused(Exception):
    def __init__(self, status, detail, pointer):
        self.status = status
        self.body = {"title": "refused", "status": status, "detail": detail, "pointer": pointer}


def view(definition):
    shown = {key: definition[key] for key in ("driver", "labels", "properties", "max_builds")}
    return {**shown, "definition": definition}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.serve()

    def do_POST(self):
        self.serve()

    def do_DELETE(self):
        self.serve()

    def serve(self):
        stand_in = self.server.stand_in
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        body = json.loads(content) if content else None
        stand_in.requests.append((self.command, parts.path, body, dict(self.headers)))
        if stand_in.fail:
            self.answer(*stand_in.fail.pop(0))
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.answer(401, {"title": "unknown token", "status": 401, "detail": "unknown token"})
        else:
            try:
                self.answer(*self.route(stand_in, parts, body))
            except Refused as refused:
                self.answer(refused.status, refused.body)

    def route(self, hub, parts, body):
        path = parts.path.removeprefix("/api/v1")
        query = {key: value[0] for key, value in parse_qs(parts.query).items()}
        orders = {
            "/workers/define": hub.define,
            "/workers/remove": hub.remove,
            "/workers/mode": hub.set_mode,
            "/workers/substantiate": lambda body: hub.order(body, "substantiated"),
            "/workers/insubstantiate": lambda body: hub.order(body, "latent"),
        }
        if path in hub.replies:
            return 200, hub.replies[path]
        if path in orders:
            return 200, {"results": orders[path](body)}
        looks = {
            "/workers/query": lambda: hub.look(hub.targets(body)),
            "/refusals": lambda: {"items": hub.refusals},
        }
        if path in looks:
            return 200, looks[path]()
        if path == "/workers":
            names = sorted(name for name in hub.workers if name > query.get("after", ""))
            page = names[: int(query["limit"])]
            more = page[-1] if len(page) < len(names) else None
            return 200, {"items": hub.look(page)["items"], "next": more}
        if path.startswith("/tokens"):
            return self.route_token(hub, path, body)
        if path == "/builds" and self.command == "POST":
            return hub.submit(body, self.headers["Idempotency-Key"])
        if path == "/builds":
            return 200, {"items": list(hub.builds.values()), "next": None}
        return self.route_build(hub, path.split("/")[2:], query)

    def route_token(self, hub, path, body):
        if self.command == "DELETE":
            return 204, hub.tokens.pop(path.rpartition("/")[2]) and b""
        if self.command == "GET":
            return 200, {"items": list(hub.tokens.values())}
        hub.tokens[body["name"]] = {"name": body["name"], "role": body["role"]}
        return 201, {**hub.tokens[body["name"]], "token": hub.new_token}

    def route_build(self, hub, words, query):
        if words[0] not in hub.builds:
            raise Refused(404, f"there is no build {words[0]!r}", None)
        build = hub.builds[words[0]]
        if words[1:2] == ["steps"]:
            log = hub.logs[words[0], int(words[2])]
            offset = int(query["offset"])
            data = log[offset : offset + int(query["limit"])]
            return 200, data, {"Hostler-Log-End": str(offset + len(data))}
        if words[1:] == ["cancel"]:
            build["state"] = "cancelled"
        elif "wait_s" in query:
            build["state"] = hub.next_result
        return 200, build

    def answer(self, status, body, headers=None):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def hub():
    """A StandIn that listens on a free port of the loopback."""
    stand_in = StandIn()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.stand_in = stand_in
    stand_in.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=[0.01], name="stand-in")
    thread.start()
    yield stand_in
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def client(hub):
    from ansible_collections.hostler.fleet.plugins.module_utils.client import Client

    return Client(hub.url, TOKEN, timeout_s=60, sleep=lambda seconds: None)


@pytest.fixture
@needs("ansible")
def ansible(tmp_path):
    """Runs an ansible command from the root: ansible("ansible-playbook", path, ...) -> result."""

    def run(command, *arguments, env=None, **kwargs):
        environ = {
            key: value for key, value in os.environ.items() if not key.startswith("HOSTLER_")
        }
        environ.update(
            ANSIBLE_LOCAL_TEMP=str(tmp_path / "local"),
            ANSIBLE_REMOTE_TEMP=str(tmp_path / "remote"),
            ANSIBLE_NOCOLOR="1",
            **(env or {}),
        )
        program = Path(sys.executable).with_name(command)
        return subprocess.run(
            [program, *map(str, arguments)],
            cwd=ROOT,
            env=environ,
            capture_output=True,
            text=True,
            check=False,
            **kwargs,
        )

    return run


@pytest.fixture
def play(ansible, hub, tmp_path):
    """Runs tasks (a list) by one play on localhost, with the hub's URL and token as defaults.

    Returns (return code, whole output). Results of the tasks are in the output by -v.
    """

    def run(tasks, *arguments, defaults=None, env=None):
        path = tmp_path / "play.json"
        access = {"hub_url": hub.url, "hub_token": TOKEN} if defaults is None else defaults
        body = {
            "hosts": "localhost",
            "gather_facts": False,
            "module_defaults": {"group/hostler.fleet.fleet": access},
            "tasks": tasks,
        }
        path.write_text(json.dumps([body]))
        # YAML, the project's own choice, wraps long messages.
        environ = {"ANSIBLE_CALLBACK_RESULT_FORMAT": "json", **(env or {})}
        done = ansible("ansible-playbook", "-i", "/dev/null", path, *arguments, env=environ)
        return done.returncode, done.stdout + done.stderr

    return run
