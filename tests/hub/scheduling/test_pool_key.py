"""Pools of groups and of drivers are told apart by type, and by the labels that are stored."""

from __future__ import annotations

from hostler_hub.scheduling.pool_key import PoolKey


def test_a_group_and_a_driver_of_one_name_are_two_pools() -> None:
    assert PoolKey.of("local", "local") != PoolKey.of(None, "local")
    assert PoolKey.of("local", "ec2").title == "group local"
    assert PoolKey.of(None, "local").title == "driver local"


def test_labels_are_what_earlier_hubs_have_stored() -> None:
    assert PoolKey("docker").label == "docker"
    assert PoolKey("docker", is_group=False).label == "driver docker"
