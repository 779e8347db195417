"""A worker's life as columns of its row, and back, derived from the fields of ``model.Worker``.

A field is kept in the column of its own name, but for ``instance``, which is the columns
``instance_id`` and ``handle`` (its epoch is the worker's). A new field of the model is kept unless
it is named here as one that is not, and a test insists that it then has a column.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

from hostler_hub.drivers.contract import Capabilities
from hostler_hub.lifecycle.model import Instance, Policy, Worker
from hostler_hub.specs.worker import WorkerDefinition


def policy_of(
    definition: WorkerDefinition, capabilities: Capabilities, *, lease_ttl_s: float
) -> Policy:
    """The part of a definition that the lifecycle acts upon.

    The driver's own ``missing_timeout_s`` applies where the definition has none.
    """
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


# Fields that live only as long as the hub's process: connection, timers, calls in progress.
TRANSIENT = frozenset(
    {"connection", "resumable", "gate", "exam", "destroying", "timers"},
)
# Fields that come from other columns and tables: the name, the definition, the open leases, and the
# process that the instance's row has.
DERIVED = frozenset({"name", "policy", "leases", "process"})


def columns_of(life: Worker) -> dict[str, Any]:
    """The stored part of a worker's life: values by column of ``store.tables.workers``."""
    columns = {name: encode(getattr(life, name)) for name, (encode, _) in _CODECS.items()}
    instance = life.instance
    columns["instance_id"] = None if instance is None else instance.id
    columns["handle"] = None
    if instance is not None and instance.handle is not None:
        columns["handle"] = dict(instance.handle)
    return columns


def life_of(
    row: Mapping[str, Any], policy: Policy, leases: tuple[str, ...], process: str | None
) -> Worker:
    """The life that a row was written from, for the hub's start: the inverse of columns_of().

    ``leases`` are the ids of the instance's open leases, ``process`` is that of its agent.
    """
    kept = {name: decode(row[name]) for name, (_, decode) in _CODECS.items()}
    instance = None
    if row["instance_id"] is not None:
        instance = Instance(row["instance_id"], row["epoch"], row["handle"])
    return Worker(
        name=row["name"],
        policy=policy,
        leases=leases,
        instance=instance,
        process=process,
        **kept,
    )


_Codec = tuple[Callable[[Any], Any], Callable[[Any], Any]]


def _same(value: Any) -> Any:
    return value


def _codec(kind: Any) -> _Codec:
    """The functions that encode a value of the type for its column, and decode it again.

    An enum is stored as its value, a dataclass as a JSON object, anything else unchanged, and None
    as NULL.
    """
    kinds = [each for each in typing.get_args(kind) or (kind,) if each is not type(None)]
    made = kinds[0]
    if isinstance(made, type) and issubclass(made, Enum):
        return _unless_none(lambda value: value.value), _unless_none(made)
    if isinstance(made, type) and dataclasses.is_dataclass(made):
        return _unless_none(dataclasses.asdict), _unless_none(lambda plain: made(**plain))
    return _same, _same


def _unless_none(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else convert(value)


def _codecs() -> dict[str, _Codec]:
    hints = typing.get_type_hints(Worker)
    names = [each.name for each in dataclasses.fields(Worker)]
    skipped = TRANSIENT | DERIVED | {"instance"}
    return {name: _codec(hints[name]) for name in names if name not in skipped}


_CODECS = _codecs()
