"""What the REST API shows of workers and builds: plain dictionaries, ready for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import RowMapping

from hostler_hub.lifecycle.model import Gate, OperatorLease, why_not_grantable, why_retiring
from hostler_hub.runtime.clock import instant
from hostler_hub.store.rows import Row
from hostler_hub.workers.registry import Entry


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


def lease_brief(person: OperatorLease) -> dict[str, Any]:
    """Who has a worker, or waits for it: for the worker's own view."""
    return {
        "id": person.id,
        "state": "held" if person.granted else "waiting",
        "holder": person.holder,
        "reason": person.reason,
        "since": instant(person.granted_at or person.asked_at),
        "until": instant(person.until),
        "keep": person.keep,
    }


def lease_view(entry: Entry, person: OperatorLease) -> dict[str, Any]:
    """A lease that lasts; ``why`` it is still waited for, or how to get to the worker."""
    return {
        "id": person.id,
        "worker": entry.life.name,
        "state": "held" if person.granted else "waiting",
        "holder": person.holder,
        "reason": person.reason,
        "keep": person.keep,
        "ttl_s": person.ttl_s,
        "asked_at": instant(person.asked_at),
        "granted_at": instant(person.granted_at),
        "until": instant(person.until),
        "why": None if person.granted else why_not_grantable(entry.life),
        "connection": _connection(entry) if person.granted else None,
        "ended_at": None,
        "end_reason": None,
    }


def _connection(entry: Entry) -> dict[str, Any] | None:
    instance = entry.life.instance
    if instance is None:
        return None
    return {
        "driver": entry.origin.driver,
        "instance": instance.id,
        "epoch": instance.epoch,
        "handle": None if instance.handle is None else dict(instance.handle),
        "driver_options": dict(entry.origin.options),
        "facts": dict(entry.facts),
    }


def past_lease_view(row: RowMapping) -> dict[str, Any]:
    """A lease that is over."""
    lease = row["lease"]
    return {
        "id": row["id"],
        "worker": row["worker"],
        "state": "ended",
        "holder": lease["holder"],
        "reason": lease["reason"],
        "keep": lease["keep"],
        "ttl_s": lease["ttl_s"],
        "asked_at": instant(lease["asked_at"]),
        "granted_at": instant(lease["granted_at"]),
        "until": instant(lease["until"]),
        "why": None,
        "connection": None,
        "ended_at": instant(row["ended_at"]),
        "end_reason": row["end_reason"],
    }
