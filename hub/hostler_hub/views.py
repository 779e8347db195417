"""What the REST API shows of workers and builds: plain dictionaries, ready for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import RowMapping

from hostler_hub.instants import instant
from hostler_hub.lease_views import lease_brief
from hostler_hub.lifecycle.model import Gate, why_retiring
from hostler_hub.scheduling.reasons import BuildReasons
from hostler_hub.workers.reconcile.reconciler import Outcome, Report
from hostler_hub.workers.registry import Entry

# A row as the store returns it, or as it was just written.
Row = RowMapping | dict[str, Any]


def definition_view(entry: Entry) -> dict[str, Any]:
    definition = entry.definition
    has_password = definition.password_ref is not None or entry.password_hash is not None
    return definition.public() | {"has_password": has_password}


def worker_view(entry: Entry, builds: Sequence[str]) -> dict[str, Any]:
    """One worker: what its owner wants, what became of it, and why."""
    life, definition = entry.life, entry.definition
    quarantine = missing = None
    if life.quarantine_until is not None:
        quarantine = {
            "until": instant(life.quarantine_until),
            "reason": life.quarantine_reason,
            "delay_s": life.backoff_s,
        }
    if life.missing_since is not None:
        missing = {"since": instant(life.missing_since), "reason": life.missing_reason}
    return {
        "name": life.name,
        "driver": definition.driver,
        "description": definition.description,
        "mode": life.mode.value,
        "mode_reason": life.mode_reason,
        "mode_by": life.mode_by,
        "mode_at": instant(life.mode_at),
        "mode_until": instant(life.mode_until),
        "state": life.state.value,
        "state_since": instant(life.state_since),
        "attached": life.attached,
        "instance": life.instance.id if life.instance else None,
        "epoch": life.epoch,
        "up_since": instant(life.up_since),
        "uses": life.uses,
        "retiring": why_retiring(life),
        "failed_starts": life.failed_starts,
        "admission": admission_view(entry),
        "quarantine": quarantine,
        "missing": missing,
        "lease": None if life.person is None else lease_brief(life.person),
        "incidents": dict(entry.incidents),
        "last_error": life.last_error,
        "builds": list(builds),
        "properties": entry.properties,
        "labels": list(definition.labels),
        "max_builds": definition.max_builds,
        "definition": definition_view(entry),
        "facts": dict(entry.facts),
        "removing": life.removing,
        "revision": entry.revision,
    }


def admission_view(entry: Entry) -> dict[str, Any] | None:
    """How its machine compares with what is expected of it; None where nothing is."""
    expects, exam, gate = entry.definition.expects, entry.exam, entry.life.gate
    if expects is None or not expects.any:
        return None
    if exam is not None and exam.expects != expects:
        exam = None  # it says nothing about what is expected now
    state = "unknown" if exam is None else "met" if exam.met else "unmet"
    return {
        "state": "asking" if gate is Gate.ASKING else state,
        "at": None if exam is None else instant(exam.at),
        "differences": [asdict(each) for each in exam.differences] if exam else [],
        "clock_skew_s": exam.findings.clock_skew_s if exam and exam.findings else None,
        "tools": {
            name: asdict(tool)
            for name, tool in ((exam and exam.findings and exam.findings.tools) or {}).items()
        },
    }


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


def event_view(row: RowMapping) -> dict[str, Any]:
    return {
        "at": instant(row["at"]),
        "event": row["event"],
        "from": row["from_state"],
        "to": row["to_state"],
        "cause": row["cause"],
        "instance": row["instance"],
        "epoch": row["epoch"],
    }


def evidence_view(row: Row) -> dict[str, Any]:
    return {
        "at": instant(row["at"]),
        "instance": row["instance"],
        "why": row["why"],
        "texts": row["texts"],
    }


def reconcile_view(report: Report) -> dict[str, Any]:
    return {
        "at": instant(report.at),
        "checked": [
            {
                "driver": driver,
                "listed": checked.listed,
                "expected": checked.expected,
                "spares": checked.spares,
            }
            for driver, checked in report.checked.items()
        ],
        "unanswered": [
            {"driver": driver, "reason": reason} for driver, reason in report.unanswered.items()
        ],
        "findings": [_finding_view(outcome, report.at) for outcome in report.outcomes],
    }


def _finding_view(outcome: Outcome, at: float) -> dict[str, Any]:
    finding = outcome.finding
    created_at = finding.owned.created_at if finding.owned is not None else None
    return {
        "driver": outcome.driver,
        "kind": finding.kind.value,
        "action": finding.action.value,
        "instance": finding.instance,
        "epoch": finding.epoch,
        "worker": finding.worker or None,
        "name": finding.name,
        "created_at": instant(created_at),
        "age_s": None if created_at is None else max(0.0, round(at - created_at, 3)),
        "reason": finding.reason,
        "done": outcome.done,
        "error": outcome.error,
    }


def decision_view(row: RowMapping) -> dict[str, Any]:
    return {
        "id": row["id"],
        "at": instant(row["at"]),
        "kind": row["kind"],
        "rule": row["rule"],
        "text": row["text"],
        "worker": row["worker"],
        "build": row["build"],
        "group": row["group"],
        "numbers": row["numbers"],
    }
