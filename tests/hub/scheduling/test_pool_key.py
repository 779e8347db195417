"""Pools of groups and of drivers are told apart by type, also after they were stored."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hostler_hub.scheduling.pool_key import PoolKey

NAMES = st.from_regex(r"[a-z0-9_.-]{1,20}", fullmatch=True)


def test_a_group_and_a_driver_of_one_name_are_two_pools() -> None:
    assert PoolKey.of("local", "local") != PoolKey.of(None, "local")
    assert PoolKey.of("local", "ec2").title == "group local"
    assert PoolKey.of(None, "local").title == "driver local"


def test_labels_are_what_earlier_hubs_have_stored() -> None:
    assert PoolKey("docker").label == "docker"
    assert PoolKey("docker", is_group=False).label == "driver docker"


@given(name=NAMES, is_group=st.booleans())
def test_a_label_gives_back_its_key(name: str, is_group: bool) -> None:
    key = PoolKey(name, is_group=is_group)
    assert PoolKey.parse(key.label) == key
