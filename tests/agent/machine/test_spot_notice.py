"""P16: the notice that a spot instance is about to be taken away."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from hostler_agent.machine.spot_notice import (
    NOTICE_S,
    POLL_EVERY_S,
    Notice,
    SpotNoticeWatcher,
    query,
)


class Metadata(BaseHTTPRequestHandler):
    """Version 2 of the service: nothing without a token of its own."""

    notice = None
    token = "a-token"

    def log_message(self, *_arguments: object) -> None: ...

    def do_PUT(self) -> None:
        right = (
            self.path == "/latest/api/token"
            and self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
        )
        self.answer(200 if right else 404, self.token)

    def do_GET(self) -> None:
        if self.headers["X-aws-ec2-metadata-token"] != self.token:
            self.answer(401, "")
        elif self.path != "/latest/meta-data/spot/instance-action" or self.notice is None:
            self.answer(404, "")
        else:
            self.answer(200, self.notice)

    def answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(Metadata, "notice", None)
    monkeypatch.setattr("hostler_agent.machine.spot_notice._ANSWER_S", 60.0)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Metadata)
    thread = threading.Thread(target=server.serve_forever, args=[0.01])
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_no_notice_and_no_service_are_nothing(metadata: str) -> None:
    assert query(metadata) is None
    assert query("http://127.0.0.1:9") is None


def in_s(seconds: float) -> str:
    return datetime.fromtimestamp(time.time() + seconds, timezone.utc).strftime(
        "%Y-%m-%dT%H:%M:%SZ"
    )


@pytest.mark.parametrize(
    ("notice", "action"),
    [
        (f'{{"action": "terminate", "time": "{in_s(3600)}"}}', "terminate"),
        ('{"action": "stop"}', "stop"),
        ('{"action": "hibernate", "time": "soon"}', "hibernate"),
        ('["something", "new"]', "interrupt"),
        ("something new", "interrupt"),
    ],
    ids=["terminate", "stop", "hibernate", "list", "text"],
)
def test_a_notice_is_read(
    metadata: str, monkeypatch: pytest.MonkeyPatch, notice: str, action: str
) -> None:
    """Where it does not say when, or a wrong clock makes it hours, it has the usual time left."""
    monkeypatch.setattr(Metadata, "notice", notice)
    assert query(metadata) == Notice(action, NOTICE_S - POLL_EVERY_S)


def test_a_notice_that_says_when_is_taken_at_its_word(
    metadata: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for given_s, left_s in ((60, 60), (-60, 0)):
        notice = f'{{"action": "terminate", "time": "{in_s(given_s)}"}}'
        monkeypatch.setattr(Metadata, "notice", notice)
        seen = query(metadata)
        assert seen is not None
        assert seen.left_s == pytest.approx(left_s, abs=40)


@pytest.mark.parametrize(("left_s", "patience_s"), [(115, 85), (31, 1), (10, 0)])
async def test_P16_first_no_more_work_then_what_runs_is_given_up(
    clock, left_s: float, patience_s: float
) -> None:
    answers: list[object] = [None, None, Notice("terminate", left_s)]
    said: list[str] = []
    watcher = SpotNoticeWatcher(clock, lambda: answers.pop(0))
    watching = asyncio.create_task(
        watcher.watch(lambda: said.append("noticed"), lambda: said.append("late"))
    )
    for _ in range(2):
        await clock.waiting(POLL_EVERY_S)
        assert said == []
        await clock.advance(POLL_EVERY_S)
    if patience_s:
        await clock.waiting(patience_s)
        assert said == ["noticed"]
        await clock.advance(patience_s)
    await watching
    assert said == ["noticed", "late"]
