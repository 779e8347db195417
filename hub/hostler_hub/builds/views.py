"""Builds, their steps and artifacts as the REST API shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import RowMapping

from hostler_hub.runtime.clock import instant
from hostler_hub.scheduling.reasons import BuildReasons
from hostler_hub.store.rows import Row


def build_view(
    row: Row, steps: Sequence[RowMapping], why: BuildReasons | None = None
) -> dict[str, Any]:
    """One build; ``why`` only while it waits."""
    view = {
        "id": row["id"],
        "name": row["name"],
        "state": row["state"],
        "spec": row["spec"],
        "worker": row["worker"],
        "attempts": row["attempts"],
        "submitted_by": row["submitted_by"],
        "submitted_at": instant(row["submitted_at"]),
        "started_at": instant(row["started_at"]),
        "finished_at": instant(row["finished_at"]),
        "result_text": row["result_text"],
        "why": why and why.text,
        "properties": _properties(row, steps),
        "steps": [_step_view(step) for step in steps],
    }
    if why is not None:
        view["why_workers"] = [
            {
                "worker": worker,
                "reasons": [each.text for each in reasons],
                "remedies": [each.remedy for each in reasons],
            }
            for worker, reasons in why.workers.items()
        ]
    return view


def _step_view(step: RowMapping) -> dict[str, Any]:
    return {
        "index": step["index"],
        "name": step["name"],
        "state": step["state"],
        "rc": step["rc"],
        "failure_reason": step["failure_reason"],
        "started_at": instant(step["started_at"]),
        "finished_at": instant(step["finished_at"]),
        "log_size_bytes": step["log_size_bytes"],
        "receipt": step["receipt"],
        "result": step["result"],
    }


def _properties(row: Row, steps: Sequence[RowMapping]) -> dict[str, Any]:
    """Those the build was submitted with, and over them those that its steps have set."""
    properties = dict(row["spec"]["properties"])
    for step in steps:
        if step["result"] is not None:
            properties |= step["result"].get("properties", {})
    return properties


def artifact_view(row: RowMapping) -> dict[str, Any]:
    return {
        "path": row["path"],
        "size_bytes": row["size_bytes"],
        "sha256": row["sha256"],
        "step": row["step"],
        "modified_at": instant(row["modified_at"]),
        "stored_at": instant(row["stored_at"]),
    }
