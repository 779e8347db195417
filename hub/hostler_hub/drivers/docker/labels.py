"""The mark as labels: on containers and on the volumes that are made with them."""

from __future__ import annotations

from collections.abc import Mapping

from hostler_hub.drivers.contract import InstanceSpec
from hostler_hub.drivers.docker.options import LABEL_PREFIX

HUB = f"{LABEL_PREFIX}hub"
INSTANCE = f"{LABEL_PREFIX}instance"
EPOCH = f"{LABEL_PREFIX}epoch"
WORKER = f"{LABEL_PREFIX}worker"
KEYS = (HUB, INSTANCE, EPOCH, WORKER)

_TAIL = 8  # of the instance's 26 letters, the random ones


def labels(hub: str, spec: InstanceSpec) -> dict[str, str]:
    return {
        HUB: hub,
        INSTANCE: spec.instance,
        EPOCH: str(spec.epoch),
        WORKER: spec.worker,
    }


def name(spec: InstanceSpec) -> str:
    """One per instance, so that the daemon itself refuses a second container (409)."""
    return f"hostler-{spec.worker}-{spec.epoch}-{spec.instance[-_TAIL:].lower()}"


def of_hub(hub: str) -> dict[str, list[str]]:
    """The filter for all that is this hub's. The daemon compares whole values."""
    return {"label": [f"{HUB}={hub}"]}


def of_instance(hub: str, instance: str) -> dict[str, list[str]]:
    return {"label": [f"{HUB}={hub}", f"{INSTANCE}={instance}"]}


def epoch_of(marked: Mapping[str, str]) -> int:
    return int(marked[EPOCH]) if marked.get(EPOCH, "").isdecimal() else 0
