"""The mark in the form of labels, on containers and on the volumes that are made with them."""

from __future__ import annotations

from collections.abc import Mapping

from hostler_agent.instances.mark import Fields, Mark
from hostler_hub.drivers.contract import InstanceSpec
from hostler_hub.drivers.docker.options import LABEL_PREFIX

MARK = Fields(LABEL_PREFIX)
"""The names of the labels that carry an instance's mark."""

_TAIL = 8  # letters of the instance's 26: random ones


def of(mark: Mark) -> dict[str, str]:
    """The labels of a container, and of its volumes."""
    return mark.fields(LABEL_PREFIX)


def mark_of(labels: Mapping[str, str]) -> Mark:
    """The mark in labels."""
    return Mark.of_fields(LABEL_PREFIX, labels)


def name(instance: InstanceSpec | Mark) -> str:
    """The name of an instance's container. It is unique for each instance, so that the daemon
    itself refuses a second container (409).
    """
    return f"hostler-{instance.worker}-{instance.epoch}-{instance.instance[-_TAIL:].lower()}"


def of_hub(hub: str) -> dict[str, list[str]]:
    """The filter for all objects of one hub. The daemon compares whole values."""
    return {"label": [f"{MARK.hub}={hub}"]}


def of_instance(hub: str, instance: str) -> dict[str, list[str]]:
    """The filter for all objects of one instance."""
    return {"label": [f"{MARK.hub}={hub}", f"{MARK.instance}={instance}"]}
