"""The fake driver keeps the contract, and its knobs break it in the ways providers do."""

from __future__ import annotations

from typing import Any

import pytest
from conformance.drivers import Conformance, ref_of, spec_of

from hostler_hub.drivers.contract import Environment
from hostler_hub.drivers.errors import OptionsRefused, ProviderFailed
from hostler_hub.drivers.fake.driver import FakeDriver
from hostler_hub.lifecycle.model import Presence


@pytest.fixture
def driver(environment: Environment) -> FakeDriver:
    return FakeDriver(environment)


@pytest.fixture
def other_hub_driver(other_environment: Environment) -> FakeDriver:
    return FakeDriver(other_environment)


@pytest.fixture
def options() -> dict[str, Any]:
    return {}


class TestFake(Conformance):
    """The contract itself."""


async def test_P1_failed_but_done_leaves_an_instance(driver: FakeDriver) -> None:
    spec = spec_of({"create": "fail_done"})
    with pytest.raises(ProviderFailed):
        await driver.create(spec)
    assert (await driver.inspect(ref_of(spec, None))).presence is Presence.RUNNING


async def test_L02_a_refusal_leaves_nothing(driver: FakeDriver) -> None:
    spec = spec_of({"create": "refuse"})
    with pytest.raises(OptionsRefused):
        await driver.create(spec)
    assert await driver.list_owned([]) == []


@pytest.mark.parametrize(("knob", "left"), [("fail", 1), ("fail_done", 0)])
async def test_P13_a_destroy_that_fails_or_only_says_so(
    driver: FakeDriver, knob: str, left: int
) -> None:
    spec = spec_of({"destroy": knob})
    await driver.create(spec)
    with pytest.raises(ProviderFailed):
        await driver.destroy(ref_of(spec, None))
    assert len(await driver.list_owned([])) == left


async def test_P15_taken_away_from_outside(driver: FakeDriver) -> None:
    spec = spec_of({})
    await driver.create(spec)
    await driver.take_away(spec.instance)
    assert (await driver.inspect(ref_of(spec, None))).presence is Presence.GONE
