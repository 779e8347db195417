"""What the module asks, and what it gives back; against a stand-in for the hub."""

from collection.test_modules import show, shown, task

ID = "01K8Z9Q8Y3N6V4T2R0P9M7K5J3"
INCIDENT = {"id": ID, "worker": "w", "kind": "missing", "open": True, "notification": "sent"}


def test_the_incidents_that_are_asked_for(hub, play):
    hub.replies["/incidents"] = {"items": [INCIDENT], "next": None}
    tasks = [task("incident_info", open=True, worker="w"), show("result.incidents")]
    code, output = play(tasks, "--check")
    assert code == 0, output
    assert shown(output) == [[INCIDENT]]
    assert "open=true" in str(hub.requests)
    assert "worker=w" in str(hub.requests) or "'worker': 'w'" in str(hub.requests)


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
