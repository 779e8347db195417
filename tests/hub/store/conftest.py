"""A store on a fresh database, and rows to put into it."""

from __future__ import annotations

import pytest

from hostler_hub.runtime.ids import new_ulid
from hostler_hub.store.engine import Store


@pytest.fixture
async def store(database_url):
    async with Store(database_url, exclusive=True) as store:
        yield store


@pytest.fixture
def build_row():
    def make(**values):
        row = {
            "id": new_ulid(),
            "name": None,
            "state": "queued",
            "spec": {"steps": []},
            "priority": 0,
            "submitted_by": "alice",
            "submitted_at": 1.0,
            "not_before": None,
            "started_at": None,
            "finished_at": None,
            "worker": None,
            "attempts": 0,
            "result_text": None,
            "cancel_reason": None,
            "idempotency_key": None,
            "spec_digest": None,
        }
        return row | values

    return make


@pytest.fixture
def lease_row():
    def make(build, epoch=1, **values):
        row = {"id": new_ulid(), "build": build, "worker": "w1", "instance": "i1", "epoch": epoch}
        return row | {"acquired_at": 2.0, "ended_at": None, "end_reason": None} | values

    return make


@pytest.fixture
def step_row():
    def make(build, attempt=1, index=0, **values):
        row = {
            "build": build,
            "attempt": attempt,
            "index": index,
            "name": "run",
            "state": "pending",
        }
        row |= {"rc": None, "failure_reason": None, "started_at": None, "finished_at": None}
        return row | {"log_size_bytes": 0, "receipt": None} | values

    return make


@pytest.fixture
def worker_row():
    def make(name="w1", **values):
        row = {
            "name": name,
            "definition": {"driver": "fake"},
            "password_hash": None,
            "mode": "active",
            "mode_reason": None,
            "mode_by": None,
            "mode_at": None,
            "mode_until": None,
            "state": "latent",
            "state_since": 1.0,
            "epoch": 0,
            "instance_id": None,
            "handle": None,
            "quarantine_until": None,
            "quarantine_reason": None,
            "backoff_s": 0.0,
            "last_error": None,
            "missing_since": None,
            "missing_reason": None,
            "failed_starts": 0,
            "up_since": None,
            "uses": 0,
            "retiring": None,
            "tainted": False,
            "removing": False,
            "destroy_attempts": 0,
            "facts": {},
            "revision": 1,
            "person": None,
        }
        return row | values

    return make


@pytest.fixture
def instance_row():
    def make(worker="w1", epoch=1, **values):
        row = {"id": new_ulid(), "worker": worker, "epoch": epoch, "token_hash": "t"}
        return row | {"session_hash": None, "created_at": 1.0, "ended_at": None} | values

    return make
