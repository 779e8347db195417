"""What the module asks, and what it gives back; against a stand-in for the hub."""

from types import SimpleNamespace

from collection.test_modules import show, shown, task

ID = "01K8Z9Q8Y3N6V4T2R0P9M7K5J3"
INCIDENT = {"id": ID, "worker": "w", "kind": "missing", "open": True, "notification": "sent"}


def test_the_incidents_that_are_asked_for(hub, play):
    hub.replies["/incidents"] = {"items": [INCIDENT], "next": None}
    tasks = [task("incident_info", open=True, worker="w"), show("result.incidents")]
    code, output = play(tasks, "--check")
    assert code == 0, output
    assert shown(output) == [[INCIDENT]]


class Asked:
    """A client that notes the query, and answers with two pages."""

    def __init__(self):
        self.queries = []

    def get(self, _path, query):
        self.queries.append(dict(query))
        return {"items": [INCIDENT], "next": None if "after" in query else ID}


def test_what_is_asked_for_goes_to_the_hub_page_by_page():
    from ansible_collections.hostler.fleet.plugins.modules import incident_info

    client, answers = Asked(), []
    params = {"id": None, "open": False, "worker": "w", "kind": None, "limit": 700}
    module = SimpleNamespace(params=params, exit_json=lambda **answer: answers.append(answer))
    incident_info.work(module, client)
    assert answers == [{"incidents": [INCIDENT, INCIDENT]}]
    assert client.queries == [
        {"open": "false", "worker": "w", "limit": 500},
        {"open": "false", "worker": "w", "limit": 500, "after": ID},
    ]


def test_one_incident_with_its_deliveries(hub, play):
    detail = {**INCIDENT, "deliveries": [{"id": "D", "state": "failed", "last_error": "550"}]}
    hub.replies[f"/incidents/{ID}"] = detail
    code, output = play([task("incident_info", id=ID), show("result.incidents")])
    assert code == 0, output
    assert shown(output) == [[detail]]


def test_bad_input_is_said_plainly(hub, play):
    code, output = play([task("incident_info", limit=0)])
    assert code != 0
    assert "limit: 0 is no count" in output
    code, output = play([task("incident_info", id=ID, open=True)])
    assert "mutually exclusive: id|open" in output
