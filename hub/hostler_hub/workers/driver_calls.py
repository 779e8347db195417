"""Calls drivers as the lifecycle core orders; each call returns the event of its outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import structlog

from hostler_hub.drivers.contract import Driver, InstanceRef, InstanceSpec, Keeper
from hostler_hub.drivers.errors import DriverError, OptionsRefused
from hostler_hub.lifecycle import commands, events
from hostler_hub.lifecycle.model import Presence
from hostler_hub.runtime.clock import Clock
from hostler_hub.workers.evidence import Evidence
from hostler_hub.workers.registry import Entry

_log = structlog.get_logger(__name__)


class DriverCalls:
    """Creates, inspects and destroys instances, each call within the driver's own deadline.

    A driver may be anybody's code: whatever it raises becomes an event. The caller holds the
    entry's ``driver_lock``, so that no two calls for one worker run at once.
    """

    def __init__(self, drivers: Mapping[str, Driver], clock: Clock, evidence: Evidence) -> None:
        self._drivers = drivers
        self._clock = clock
        self._evidence = evidence

    async def create(self, entry: Entry, command: commands.Create) -> events.Event:
        driver = self._drivers[entry.origin.driver]
        spec = InstanceSpec(
            worker=entry.life.name,
            instance=command.instance,
            epoch=command.epoch,
            token=entry.token or "",
            options=entry.origin.options,
            agent_config=entry.definition.agent_config,
        )
        entry.token = None  # handed over; the row has its hash
        try:
            async with asyncio.timeout(driver.capabilities.create_deadline_s):
                handle = await driver.create(spec)
        except Exception as error:  # noqa: BLE001 - see above
            text = _reason(driver, "create", error)
            return events.CreateFailed(
                at=self._clock.now(),
                instance=spec.instance,
                error=text,
                refused=isinstance(error, OptionsRefused),
            )
        return events.Created(at=self._clock.now(), instance=spec.instance, handle=handle)

    async def inspect(self, entry: Entry, command: commands.Inspect) -> events.Event:
        driver = self._drivers[entry.origin.driver]
        presence, evidence, handle = Presence.UNKNOWN, "", None
        try:
            async with asyncio.timeout(driver.capabilities.inspect_deadline_s):
                seen = await driver.inspect(self._ref(entry, command.instance))
            presence, evidence, handle = seen.presence, seen.evidence, seen.handle
        except Exception as error:  # noqa: BLE001 - see above
            evidence = _reason(driver, "inspect", error)
        return events.Inspected(
            at=self._clock.now(),
            instance=command.instance,
            presence=presence,
            evidence=evidence,
            handle=handle,
        )

    async def destroy(self, entry: Entry, command: commands.Destroy) -> events.Event:
        driver = self._drivers[entry.origin.driver]
        try:
            ref = self._ref(entry, command.instance)
            if command.failure is not None:
                await self._evidence.gather(driver, ref, command.failure)
            async with asyncio.timeout(driver.capabilities.destroy_deadline_s):
                kept = await _end(driver, ref, keep=command.keep)
        except Exception as error:  # noqa: BLE001 - see above
            text = _reason(driver, "destroy", error)
            at = self._clock.now()
            return events.DestroyFailed(at=at, instance=command.instance, error=text)
        return events.Destroyed(at=self._clock.now(), instance=command.instance, kept=kept)

    def _ref(self, entry: Entry, instance: str) -> InstanceRef:
        life = entry.life
        handle = life.instance.handle if life.instance and life.instance.id == instance else None
        return InstanceRef(life.name, instance, life.epoch, handle, self._options(entry))

    def _options(self, entry: Entry) -> Mapping[str, Any]:
        """The options to call the driver with.

        The definition's, if they still lead to the place where the instance was started; else those
        it was started with.
        """
        origin, definition = entry.origin, entry.definition
        same = origin.driver == definition.driver
        present = definition.driver_options if same else None
        return self._drivers[origin.driver].options_model.in_force(present, origin.options)


async def _end(driver: Driver, ref: InstanceRef, *, keep: bool) -> bool:
    """End the instance. Returns whether its machine is kept for the worker's next instance."""
    if keep and isinstance(driver, Keeper) and driver.options_model.of(ref.options).recipe:
        return await driver.keep(ref)
    await driver.destroy(ref)
    return False


def _reason(driver: Driver, verb: str, error: Exception) -> str:
    """The error of a driver call, as a text for people.

    An exception that breaks the driver's contract is logged and gets a text as well: it must not
    leave the worker waiting for an event (V17).
    """
    if isinstance(error, TimeoutError):
        return f"{driver.name}: {verb} did not answer within its deadline"
    if isinstance(error, DriverError):
        return str(error)
    _log.error("driver broke its contract", driver=driver.name, verb=verb, exc_info=error)
    return f"{driver.name}: {verb} broke: {type(error).__name__}: {error}"
