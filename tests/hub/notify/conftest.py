"""An outbox on a real store and a clock moved by hand, and messages to send."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority, authority

from hostler_hub.notify.message import Message, Notice
from hostler_hub.runtime.secrets import Secrets
from hostler_hub.store.engine import Store
from hostler_hub.workers.incident_views import IncidentView

INCIDENT: dict[str, Any] = {
    "id": "01K8Z9Q8Y3N6V4T2R0P9M7K5J3",
    "worker": "docker-07",
    "kind": "missing",
    "instance": "01K8Z9Q8Y3N6V4T2R0P9M7K5J4",
    "open": True,
    "opened_at": "2026-01-02T03:04:05.678Z",
    "closed_at": None,
    "reason": "its agent did not attach within 120 s",
    "close_reason": None,
    "evidence": {"driver": "docker", "epoch": 4, "console": "line 1\nline 2"},
    "notification": "none",
}


def message(about: str = "opened", *, notices: int = 1, **changes: Any) -> Message:
    incident = None if about == "test" else IncidentView(**{**INCIDENT, **changes})
    told = tuple(Notice(about, incident) for _ in range(notices))
    return Message("01K8Z9Q8Y3N6V4T2R0P9M7K5J9", "ann@example.org", about, told)


@pytest.fixture
async def store(sqlite_template: Path, tmp_path: Path) -> AsyncIterator[Store]:
    path = tmp_path / "hub.sqlite3"
    shutil.copy(sqlite_template, path)
    async with Store(f"sqlite:///{path}", exclusive=True) as made:
        yield made


@pytest.fixture(scope="session")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def secrets(tmp_path: Path) -> Secrets:
    (tmp_path / "smtp").write_text("correct horse\n")
    (tmp_path / "hook").write_text("battery staple\n")
    return Secrets(tmp_path)
