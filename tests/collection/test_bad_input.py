"""Bad input as its owner reads it: one text, in the playbook, the decision log and all else.

It names the driver, the option, the provider's own words and what to do. All cases are tried in one
go, since each takes its time: what fails, waits, and is tried again, does so side by side.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
import urllib.request
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
from collection.bad_input import CASES, Places, opened
from e2e.hub_process import HubProcess
from peers import docker as docker_peer

from hostler_hub.drivers.docker import labels

pytestmark = pytest.mark.timeout(900)

FIRST_S, SECOND_S = 10.0, 20.0  # how long a worker is left alone after its first failures
CLOCK_S = 0.01  # what instants are told and compared to
DEADLINE_S = 200.0  # of a machine that is busy with other things
WAITING_S = 600.0  # what the playbook may take for workers that come up


class Site:
    """A hub, the places, and what became of a worker for each case."""

    def __init__(self, hub: HubProcess, places: Places) -> None:
        self.hub = hub
        self.places = places
        self.told: dict[str, Told] = {}
        self.was_tried = False

    def get(self, path: str) -> Any:
        return self._ask("GET", path)

    def post(self, path: str, body: Any) -> Any:
        return self._ask("POST", path, body)

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        content = None if body is None else json.dumps(body).encode()
        headers = {
            "Authorization": f"Bearer {self.hub.token}",
            "Content-Type": "application/json",
        }
        url = f"{self.hub.url}/api/v1{path}"
        request = urllib.request.Request(url, content, headers, method=method)
        with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:
            return json.load(answer)

    def leftovers(self) -> list[str]:
        """Of the hub, its instances and their agents, wherever they were to be."""
        return [*self.hub.leftovers(), *self._on_machines(), *self._at_daemons()]

    def _on_machines(self) -> list[str]:
        place = str(self.places.directory / "hostler")
        roots = [Path(place), self.places.full_disk / "hostler"]
        found = [each for root in roots for each in root.glob("instances/*")]
        found += [each for root in roots for each in root.glob("agents/.*")]
        kept = [str(each) for each in found if each.suffix != ".lock"]
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if place in " ".join(process.cmdline()):
                    kept.append(str(process))
        return kept

    def _at_daemons(self) -> list[str]:
        with urllib.request.urlopen(f"{self.hub.url}/healthz") as answer:
            ours = labels.of_hub(json.load(answer)["hub"])
        kept: list[str] = []
        for url in filter(None, (self.places.daemon, self.places.full_daemon)):
            with docker_peer.client_of(url) as client:
                kept += [each["Id"] for each in client.containers(all=True, filters=ours)]
                kept += [each["Name"] for each in client.volumes(filters=ours)["Volumes"] or []]
        return kept


@dataclass
class Told:
    """What was said of a worker, and where; when it was started, when and how long left alone."""

    texts: dict[str, str]
    started_at: list[float] = field(default_factory=list)
    quarantined: list[tuple[float, float]] = field(default_factory=list)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    directory = tmp_path_factory.mktemp("site")
    with (
        opened(directory, directory / "hub" / "secrets") as places,
        HubProcess.running(directory / "hub") as hub,
    ):
        yield Site(hub, places)


@pytest.fixture
def told(site, ansible, tmp_path):
    """{case: Told} of all cases that can be tried on this machine."""
    if not site.was_tried:
        site.was_tried = True
        cases = {name: case for name, case in CASES.items() if case.can_be_tried()}
        inventory = tmp_path / "fleet.json"
        inventory.write_text(json.dumps(inventory_of(cases, site.places)))
        said = provision(ansible, inventory, site)
        builds = {name: submit(site, name) for name in cases}
        until(lambda: all_tried_twice(site, cases))
        for name in cases:
            site.told[name] = collect(site, name, said[name], builds[name])
            site.post(f"/builds/{builds[name]}/cancel", {"reason": "enough"})
        # On a slow machine one is tried a third time meanwhile.
        until(lambda: all(site.get(f"/workers/{name}")["state"] == "latent" for name in cases))
    return site.told


def all_tried_twice(site, cases):
    """Whether each worker has failed twice. So many at one machine open its breaker: somebody who
    wants them tried all the same closes it.
    """
    domains = [each["domain"] for each in site.get("/breakers")["items"]]
    if domains:
        site.post("/breakers/close", {"domains": domains})
    return all(len(decisions(site, name, "quarantine")) > 1 for name in cases)


def inventory_of(cases, places):
    hosts = {
        name: {
            "hostler_driver": case.driver,
            "hostler_driver_options": case.options(places),
            "hostler_check_instance_interval": 0.5,
            "hostler_group": name,  # in one, so many failures would open its breaker
        }
        for name, case in cases.items()
    }
    shared = {
        "ansible_connection": "local",
        "ansible_python_interpreter": "{{ ansible_playbook_python }}",
        "fleet_groups": [{"name": name} for name in cases],
    }
    return {"workers": {"hosts": hosts, "vars": shared}}


def provision(ansible, inventory, site):
    """What the playbook says of each worker when it fails."""
    extra = {"hub_state_dir": str(site.hub.state_dir), "prestart": "all", "smoke": False}
    extra["deadline"] = WAITING_S
    began = time.monotonic()
    done = ansible(
        *("ansible-playbook", "playbooks/provision.yml", "-i", inventory, "-e", json.dumps(extra)),
        env={"ANSIBLE_CALLBACK_RESULT_FORMAT": "json"},
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert time.monotonic() - began < DEADLINE_S, "nobody waits for what has failed"
    (found,) = re.findall(r"FAILED! => (\{.*\})$", done.stdout, re.MULTILINE)
    result = json.loads(found)
    assert all(result["left"][name] in result["msg"] for name in sorted(result["left"])[:10])
    return result["left"]


def submit(site, worker):
    steps = [{"name": "never", "command": "true"}]
    return site.post("/builds", {"steps": steps, "requires": {"worker": worker}})["id"]


def decisions(site, worker, kind):
    """The oldest first."""
    return site.get(f"/decisions?worker={worker}&kind={kind}")["items"][::-1]


def until(asked):
    """The first answer that is one."""
    deadline = time.monotonic() + DEADLINE_S
    while not (answer := asked()):
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.2)
    return answer


def left_alone(site, worker, build):
    """Its view, and its build's, while it is."""
    view, waiting = site.get(f"/workers/{worker}"), site.get(f"/builds/{build}")
    if view["state"] != "latent" or view["quarantine"] is None:
        return None
    still = site.get(f"/workers/{worker}")["quarantine"] == view["quarantine"]
    return (view, waiting) if still else None


def collect(site, name, said, build):
    view, waiting = until(lambda: left_alone(site, name, build))
    log = decisions(site, name, "quarantine")
    (incident,) = site.get(f"/incidents?worker={name}")["items"]
    texts = {
        "playbook": said,
        "decision": log[0]["text"],
        "second decision": log[1]["text"],
        "incident": incident["reason"],
        "worker": view["last_error"],
        "quarantine": view["quarantine"]["reason"],
        "build": waiting["why"],
    }
    return Told(
        texts,
        [seconds(each["at"]) for each in decisions(site, name, "start")],
        [(seconds(each["at"]), each["numbers"]["delay_s"]) for each in log],
    )


def seconds(instant):
    return datetime.fromisoformat(instant).timestamp()


def param(name, case):
    return pytest.param(name, id=name, marks=[pytest.mark.peer(peer) for peer in case.peers])


@pytest.mark.parametrize("name", [param(name, case) for name, case in CASES.items()])
def test_P7_it_is_told_alike_everywhere_and_tried_ever_more_rarely(site, told, name):
    for where, text in told[name].texts.items():
        for word in site.places.words_of(CASES[name]):
            assert word in text, f"{where}: {text}"
    first, second, *_ = told[name].started_at
    (failed_at, first_s), (_, second_s), *_ = told[name].quarantined
    assert (first_s, second_s) == (FIRST_S, SECOND_S)
    assert first <= failed_at <= second - FIRST_S + CLOCK_S


@pytest.mark.peer("sshd")
@pytest.mark.peer("docker")
def test_V2_nothing_stays_behind_of_what_could_not_be_started(site, told):
    assert told
    assert site.leftovers() == []
