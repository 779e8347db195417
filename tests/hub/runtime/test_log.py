"""The log: JSON lines, and no token in them (V14)."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from hostler_hub.runtime.log import MASK, redact

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
        "logging.getLogger('b').warning('two %s', 'args', extra={'field': 1});"
        "logging.getLogger('alembic.runtime').info('chatter')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    one, two = (json.loads(line) for line in done.stderr.splitlines())
    assert (one["event"], one["worker"], one["token"], one["level"]) == ("one", "w", MASK, "info")
    assert (two["event"], two["field"], two["logger"]) == ("two args", 1, "b")
