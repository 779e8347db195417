"""A worker's life as columns of its rows, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from hostler_hub.drivers.contract import Capabilities
from hostler_hub.lifecycle.model import Instance, Mode, OperatorLease, Policy, State, Worker
from hostler_hub.specs.worker import WorkerDefinition


def policy_of(
    definition: WorkerDefinition, capabilities: Capabilities, *, lease_ttl_s: float
) -> Policy:
    """The part of a definition the lifecycle acts upon."""
    missing_timeout = definition.missing_timeout
    if missing_timeout is None:
        missing_timeout = capabilities.missing_timeout_s
    return Policy(
        build_wait_timeout_s=float(definition.build_wait_timeout),
        missing_timeout_s=float(missing_timeout),
        check_instance_interval_s=float(definition.check_instance_interval),
        max_builds=definition.max_builds,
        max_uses=definition.max_uses,
        max_uptime_s=None if definition.max_uptime is None else float(definition.max_uptime),
        lease_ttl_s=lease_ttl_s,
        permanent=capabilities.permanent,
        expects=definition.expects if definition.expects and definition.expects.any else None,
    )


def columns_of(life: Worker) -> dict[str, Any]:
    """The persisted part of a life, by column of ``store.tables.workers``."""
    return {
        "mode": life.mode.value,
        "mode_reason": life.mode_reason,
        "mode_by": life.mode_by,
        "mode_at": life.mode_at,
        "mode_until": life.mode_until,
        "state": life.state.value,
        "state_since": life.state_since,
        "epoch": life.epoch,
        "instance_id": life.instance.id if life.instance else None,
        "handle": _json(life.instance.handle) if life.instance else None,
        "quarantine_until": life.quarantine_until,
        "quarantine_reason": life.quarantine_reason,
        "backoff_s": life.backoff_s,
        "last_error": life.last_error,
        "missing_since": life.missing_since,
        "missing_reason": life.missing_reason,
        "failed_starts": life.failed_starts,
        "up_since": life.up_since,
        "uses": life.uses,
        "retiring": life.retiring,
        "tainted": life.tainted,
        "removing": life.removing,
        "destroy_attempts": life.destroy_attempts,
        "person": None if life.person is None else dataclasses.asdict(life.person),
    }


def life_of(row: Mapping[str, Any], policy: Policy, leases: tuple[str, ...]) -> Worker:
    """The inverse of columns_of(), as the hub finds it at its start."""
    instance = None
    if row["instance_id"] is not None:
        instance = Instance(row["instance_id"], row["epoch"], row["handle"])
    return Worker(
        name=row["name"],
        policy=policy,
        mode=Mode(row["mode"]),
        mode_reason=row["mode_reason"],
        mode_by=row["mode_by"],
        mode_at=row["mode_at"],
        mode_until=row["mode_until"],
        state=State(row["state"]),
        state_since=row["state_since"],
        epoch=row["epoch"],
        instance=instance,
        leases=leases,
        person=None if row["person"] is None else OperatorLease(**row["person"]),
        quarantine_until=row["quarantine_until"],
        quarantine_reason=row["quarantine_reason"],
        backoff_s=row["backoff_s"],
        last_error=row["last_error"],
        missing_since=row["missing_since"],
        missing_reason=row["missing_reason"],
        failed_starts=row["failed_starts"],
        up_since=row["up_since"],
        uses=row["uses"],
        retiring=row["retiring"],
        tainted=row["tainted"],
        removing=row["removing"],
        destroy_attempts=row["destroy_attempts"],
    )


def _json(handle: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if handle is None else dict(handle)
