"""The log: JSON lines, and no token in them (V14)."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import structlog

from hostler_hub.runtime.log import MASK, PerClientLimit, Tally, redact

TOKEN = "hst_" + "a" * 12 + "_" + "B" * 43


@pytest.mark.parametrize(
    "fields",
    [
        {"token": "x"},
        {"Authorization": "Bearer x"},
        {"worker_password": "x"},
        {"event": f"got {TOKEN} there"},
        {"headers": {"cookie": "x", "n": [f"Bearer {TOKEN}"]}},
        {"url": "postgresql://ann:x-secret@db/hub"},
        {"detail": "Basic d2ViLTE6aHVudGVyMg=="},
    ],
)
def test_what_looks_like_a_secret_is_masked(fields: dict[str, object]) -> None:
    made = json.dumps(redact(None, "info", dict(fields)))
    assert MASK in made
    for secret in (TOKEN, '"x"', "x-secret", "d2ViLTE6"):
        assert secret not in made


def test_the_rest_stays() -> None:
    fields = {"event": "hub started", "port": 8010, "url": "http://127.0.0.1:8010", "nil": None}
    assert redact(None, "info", dict(fields)) == fields


def test_both_kinds_of_records_become_json_lines() -> None:
    code = (
        "import logging, structlog; from hostler_hub.runtime import log; log.configure('info');"
        "structlog.get_logger('a').info('one', worker='w', token='x');"
        "structlog.get_logger('a').debug('never');"
        "structlog.get_logger('a').info('three', reason='\\x1b[2J\\x9b31m\\x7f\\u202e');"
        "logging.getLogger('b').warning('two %s', 'args', extra={'field': 1});"
        "logging.getLogger('alembic.runtime').info('chatter')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.replace("\n", "").isprintable()
    one, three, two = (json.loads(line) for line in done.stderr.splitlines())
    assert three["reason"] == "\x1b[2J\x9b31m\x7f\u202e"
    assert (one["event"], one["worker"], one["token"], one["level"]) == ("one", "w", MASK, "info")
    assert (two["event"], two["field"], two["logger"]) == ("two args", 1, "b")


def test_a_tally_logs_at_once_and_then_once_a_minute() -> None:
    now = 0.0
    tally = Tally(lambda: now)
    assert [tally.count() for _ in range(3)] == [1, 0, 0]
    now = 59.0
    assert tally.count() == 0
    now = 60.0
    assert [tally.count(), tally.count()] == [4, 0]


def kept(limit: PerClientLimit, **fields: object) -> dict[str, object] | None:
    try:
        return dict(limit(None, "warning", dict(fields)))
    except structlog.DropEvent:
        return None


def test_V15_who_is_refused_without_end_gets_ten_lines_a_minute() -> None:
    now = 0.0
    limit = PerClientLimit(lambda: now)
    refused = {"event": "agent refused", "client": "192.0.2.7"}
    lines = [kept(limit, **refused) for _ in range(1000)]
    assert lines == [refused] * 10 + [None] * 990
    assert kept(limit, event="agent refused", client="192.0.2.8")
    assert kept(limit, event="token refused", client="192.0.2.7")
    assert all(kept(limit, event="worker changed state") for _ in range(100))
    now = 61.0
    assert kept(limit, **refused) == {**refused, "not_logged": 990}


def test_V15_clients_without_end_are_forgotten() -> None:
    limit = PerClientLimit(lambda: 0.0)
    for number in range(3000):
        assert kept(limit, event="agent refused", client=f"client {number}")
    assert len(limit._windows) == 1000
