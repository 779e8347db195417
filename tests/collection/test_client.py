"""The REST client and its errors, against a real HTTP server that stands in for the hub."""

import http.server
import json
import socket
import threading

import pytest
from ansible_collections.hostler.fleet.plugins.module_utils import errors
from ansible_collections.hostler.fleet.plugins.module_utils import hub as hub_access
from ansible_collections.hostler.fleet.plugins.module_utils.client import Client

TOKEN = "stand-in-token-6f1c2a"
NO_OPTIONS = dict.fromkeys(("hub_url", "hub_token", "hub_token_file", "hub_state_dir"))


def test_answers_are_decoded_and_the_token_goes_in_the_header(hub, client):
    assert client.get("/workers", {"limit": 5}) == {"items": [], "next": None}
    method, path, body, headers = hub.requests[0]
    assert (method, path, body) == ("GET", "/api/v1/workers", None)
    assert headers["Authorization"] == f"Bearer {TOKEN}"


def test_a_503_is_tried_again_and_the_hub_s_own_wait_is_kept(hub):
    waits = []
    client = Client(hub.url, TOKEN, timeout_s=60, sleep=waits.append)
    not_yet = (503, {"title": "starting", "status": 503}, {"Retry-After": "2"})
    hub.fail = [not_yet, (503, {"title": "starting", "status": 503})]
    assert client.post("/workers/query", {"names": ["a"]})["unknown"] == ["a"]
    assert waits == [2.0, 0.3]
    assert len(hub.requests) == 3


def test_a_wait_that_the_hub_asks_for_is_capped(hub):
    waits = []
    client = Client(hub.url, TOKEN, sleep=waits.append)
    hub.fail = [(503, {"title": "starting"}, {"Retry-After": "86400"})]
    client.get("/workers", {"limit": 5})
    assert waits == [5.0]


def test_what_may_not_be_done_twice_is_sent_once(hub, client):
    hub.fail = [(503, {"title": "starting", "status": 503})]
    with pytest.raises(errors.HubUnreachable):
        client.post_once("/tokens", {"name": "ci"})
    assert len(hub.requests) == 1


def test_a_hub_that_is_down_is_tried_a_few_times_and_named():
    waits = []
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # it does not listen, and nobody else does meanwhile
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        with pytest.raises(errors.HubUnreachable, match=f"{url} cannot be reached.*is it running"):
            Client(url, TOKEN, sleep=waits.append).get("/workers")
    assert waits == [0.1, 0.3, 0.8, 1.6]


def test_a_hub_that_does_not_answer_ends_by_the_timeout():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = Client(f"http://127.0.0.1:{silent.getsockname()[1]}", TOKEN, timeout_s=0.2)
        with pytest.raises(errors.HubUnreachable, match=r"did not answer within 0\.2 s"):
            client.get("/workers")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, errors.TokenRefused),
        (403, errors.RoleTooSmall),
        (404, errors.NotFound),
        (409, errors.Conflict),
        (413, errors.InvalidRequest),
        (422, errors.InvalidRequest),
        (500, errors.HubFailed),
        (418, errors.UnexpectedAnswer),
    ],
)
def test_each_refusal_has_its_type(hub, client, status, kind):
    hub.fail = [(status, {"title": "no", "status": status, "detail": "because"})]
    with pytest.raises(kind) as caught:
        client.get("/workers")
    assert caught.value.status == status
    assert hub.url in caught.value.message
    assert TOKEN not in caught.value.message


def test_problem_details_say_where_and_what(hub, client):
    problem = {
        "title": "Invalid",
        "detail": "must be at least 1",
        "pointer": "/workers/0/max_builds",
    }
    hub.fail = [(422, problem)]
    with pytest.raises(errors.InvalidRequest) as caught:
        client.post("/workers/define", {})
    assert caught.value.message.endswith("/workers/0/max_builds: must be at least 1")
    assert caught.value.pointer == "/workers/0/max_builds"


def test_a_pointer_that_the_hub_says_itself_is_not_said_twice(hub, client):
    problem = {"title": "Invalid", "detail": "/steps/0: no program", "pointer": "/steps/0"}
    hub.fail = [(422, problem)]
    with pytest.raises(errors.InvalidRequest, match=r"/builds: /steps/0: no program$"):
        client.post("/builds", {})


def test_several_problems_are_all_told_up_to_five(hub, client):
    several = [{"pointer": f"/workers/{n}", "detail": "bad"} for n in range(7)]
    hub.fail = [(422, {"title": "Invalid", "detail": "7 problems", "errors": several})]
    with pytest.raises(errors.InvalidRequest, match="/workers/4: bad; and 2 more") as caught:
        client.post("/workers/define", {})
    assert len(caught.value.details) == 7


@pytest.mark.parametrize("body", [b"<html>proxy</html>", b"[1]", b'"text"'])
def test_somebody_else_s_answer_is_told_apart(hub, client, body):
    hub.fail = [(404, body)]
    with pytest.raises(errors.UnexpectedAnswer, match="no answer of a hub"):
        client.get("/workers")


def test_an_answer_that_is_no_json_is_told(hub, client):
    hub.fail = [(200, b"<html>login</html>")]
    with pytest.raises(errors.UnexpectedAnswer, match="no JSON"):
        client.get("/workers")


class Elsewhere(http.server.BaseHTTPRequestHandler):
    seen = None

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.seen.append(self.path)
        self.send_response(302)
        self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()


def test_a_redirect_is_not_followed_so_the_token_stays_home():
    seen = []
    handler = type("Handler", (Elsewhere,), {"seen": seen})
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        with pytest.raises(errors.UnexpectedAnswer, match="answered 302"):
            Client(f"http://127.0.0.1:{server.server_port}", TOKEN).get("/workers")
        server.shutdown()
        thread.join()
    assert seen == ["/api/v1/workers"]


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("127.0.0.1:8010", "no http.s. URL"),
        ("ftp://127.0.0.1", "no http.s. URL"),
        ("http://hub.example.org", "in the clear"),
        ("https://user:secret@hub.example.org", "only scheme, host and port"),
        ("http://127.0.0.1:8010/?token=x", "only scheme, host and port"),
    ],
)
def test_a_url_that_cannot_be_right_is_refused_before_anything_is_sent(url, words):
    with pytest.raises(errors.Misconfigured, match=words) as caught:
        Client(url, TOKEN)
    assert "secret" not in caught.value.message


def test_options_come_before_variables(tmp_path):
    file = tmp_path / "token"
    file.write_text("from-file\n")
    environ = {"HOSTLER_TOKEN": "from-variable", "HOSTLER_URL": "http://127.0.0.1:1"}
    assert hub_access.find_token({**NO_OPTIONS, "hub_token": "given"}, environ) == "given"
    assert hub_access.find_token({**NO_OPTIONS, "hub_token_file": file}, environ) == "from-file"
    assert hub_access.find_token(NO_OPTIONS, environ) == "from-variable"
    assert hub_access.find_token(NO_OPTIONS, {"HOSTLER_TOKEN_FILE": str(file)}) == "from-file"
    assert (
        hub_access.find_url({**NO_OPTIONS, "hub_url": "http://[::1]:2"}, environ)
        == "http://[::1]:2"
    )
    assert hub_access.find_url(NO_OPTIONS, environ) == "http://127.0.0.1:1"
    assert hub_access.find_url(NO_OPTIONS, {}) == "http://127.0.0.1:8010"


def test_a_state_directory_gives_url_and_token_together(tmp_path):
    """A token of this machine's hub never goes to the hub that a variable names."""
    (tmp_path / "hub.json").write_text(json.dumps({"url": "http://127.0.0.1:4"}))
    (tmp_path / "admin.token").write_text("admins")
    options = {**NO_OPTIONS, "hub_state_dir": str(tmp_path)}
    environ = {"HOSTLER_TOKEN": "other", "HOSTLER_URL": "https://other.example.org"}
    assert hub_access.find_url(options, environ) == "http://127.0.0.1:4"
    assert hub_access.find_token(options, environ) == "admins"


@pytest.mark.parametrize("content", [None, "", "two words", b"\xff\xfe"])
def test_a_bad_token_file_is_named_and_not_shown(tmp_path, content):
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(errors.Misconfigured, match=f"hub_token_file: {file}") as caught:
        hub_access.find_token({**NO_OPTIONS, "hub_token_file": str(file)}, {})
    assert "two words" not in caught.value.message


def test_without_any_token_the_ways_to_give_one_are_named():
    with pytest.raises(errors.Misconfigured, match="HOSTLER_TOKEN_FILE"):
        hub_access.find_token(NO_OPTIONS, {})


@pytest.mark.parametrize("content", [None, "{", "[]", "{}"])
def test_a_state_directory_without_a_hub_is_told(tmp_path, content):
    if content is not None:
        (tmp_path / "hub.json").write_text(content)
    with pytest.raises(errors.Misconfigured, match=str(tmp_path)):
        hub_access.find_url({**NO_OPTIONS, "hub_state_dir": str(tmp_path)}, {})
