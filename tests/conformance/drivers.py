"""What every driver must do; one class per driver says how to make it and what to start.

Subclass ``Conformance`` in a test module and give it fixtures ``driver`` and ``options``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from hostler_hub.drivers.contract import Driver, InstanceRef, InstanceSpec, Witness
from hostler_hub.lifecycle.model import Presence
from hostler_hub.runtime.ids import new_ulid


def spec_of(options: Mapping[str, Any], *, worker: str = "w-1", epoch: int = 1) -> InstanceSpec:
    return InstanceSpec(worker, new_ulid(), epoch, "a-token-of-no-use", options)


def ref_of(spec: InstanceSpec, handle: Mapping[str, Any] | None) -> InstanceRef:
    return InstanceRef(spec.worker, spec.instance, spec.epoch, handle, spec.options)


class Conformance:
    """The contract, call by call."""

    async def test_created_is_running_and_the_handle_is_json(
        self, driver: Driver, options: Mapping[str, Any]
    ) -> None:
        spec = spec_of(options)
        handle = await driver.create(spec)
        again = json.loads(json.dumps(dict(handle)))
        assert again["version"] >= 1
        seen = await driver.inspect(ref_of(spec, again))
        assert seen.presence is Presence.RUNNING
        await driver.destroy(ref_of(spec, again))

    async def test_K3_found_again_without_its_handle(
        self, driver: Driver, options: Mapping[str, Any]
    ) -> None:
        spec = spec_of(options)
        handle = await driver.create(spec)
        seen = await driver.inspect(ref_of(spec, None))
        assert seen.presence is Presence.RUNNING
        assert seen.handle == handle
        await driver.destroy(ref_of(spec, None))

    async def test_P12_create_twice_starts_one(
        self, driver: Driver, options: Mapping[str, Any]
    ) -> None:
        spec = spec_of(options)
        first = await driver.create(spec)
        assert await driver.create(spec) == first
        assert [owned.instance for owned in await driver.list_owned([options])] == [spec.instance]
        await driver.destroy(ref_of(spec, first))

    async def test_V3_destroyed_is_gone_and_destroying_again_is_nothing(
        self, driver: Driver, options: Mapping[str, Any]
    ) -> None:
        spec = spec_of(options)
        handle = await driver.create(spec)
        await driver.destroy(ref_of(spec, handle))
        assert (await driver.inspect(ref_of(spec, handle))).presence is Presence.GONE
        assert await driver.list_owned([options]) == [] or await driver.list_owned([options]) == ()
        await driver.destroy(ref_of(spec, handle))

    async def test_K2_what_never_was_is_gone_and_can_be_destroyed(
        self, driver: Driver, options: Mapping[str, Any]
    ) -> None:
        spec = spec_of(options)
        assert (await driver.inspect(ref_of(spec, None))).presence is Presence.GONE
        await driver.destroy(ref_of(spec, None))

    async def test_V2_list_owned_finds_all_and_only_ours(
        self, driver: Driver, other_hub_driver: Driver, options: Mapping[str, Any]
    ) -> None:
        mine = spec_of(options, epoch=3)
        theirs = spec_of(options, worker="w-2")
        mine_handle = await driver.create(mine)
        their_handle = await other_hub_driver.create(theirs)
        owned = await driver.list_owned([options])
        assert [(each.instance, each.epoch) for each in owned] == [(mine.instance, 3)]
        await other_hub_driver.destroy(ref_of(theirs, their_handle))
        assert len(await driver.list_owned([options])) == 1
        await driver.destroy(ref_of(mine, mine_handle))

    async def test_V2_what_is_listed_says_what_it_is_and_is_listed_once(
        self, driver: Driver, options: Mapping[str, Any]
    ) -> None:
        spec = spec_of(options, epoch=7)
        handle = await driver.create(spec)
        (owned,) = await driver.list_owned([options, dict(options)])
        assert (owned.instance, owned.epoch) == (spec.instance, 7)
        assert owned.name
        assert owned.worker in ("", spec.worker)
        assert owned.created_at is None or abs(owned.created_at - time.time()) < 600
        json.dumps(dict(owned.handle))
        await driver.destroy(ref_of(spec, handle))

    async def test_V2_the_handle_that_was_listed_is_enough_to_destroy(
        self, driver: Driver, options: Mapping[str, Any]
    ) -> None:
        """The ledger may know nothing of it, and its definition be gone."""
        await driver.create(spec_of(options))
        (owned,) = await driver.list_owned([options])
        handle = json.loads(json.dumps(dict(owned.handle)))
        await driver.destroy(InstanceRef(owned.worker, owned.instance, owned.epoch, handle, {}))
        assert list(await driver.list_owned([options])) == []

    async def test_evidence_is_text_within_its_limit_and_harms_nobody(
        self, driver: Driver, options: Mapping[str, Any]
    ) -> None:
        if not isinstance(driver, Witness):
            return
        spec = spec_of(options)
        handle = await driver.create(spec)
        for witnessed in (ref_of(spec, handle), ref_of(spec_of(options), None)):
            texts = await driver.evidence(witnessed)
            assert all(len(text.encode()) <= 64 * 1024 for text in texts.values())
            assert not any(spec.token in text for text in texts.values())
        assert (await driver.inspect(ref_of(spec, handle))).presence is Presence.RUNNING
        await driver.destroy(ref_of(spec, handle))
