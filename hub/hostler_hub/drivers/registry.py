"""Finds drivers by entry point, so that third parties can add one without changing the hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Any, ClassVar, NoReturn

from pydantic import ConfigDict, ValidationError

from hostler_hub.drivers.contract import (
    Capabilities,
    Driver,
    DriverOptions,
    Environment,
    Inspection,
    InstanceRef,
    InstanceSpec,
    Owned,
)
from hostler_hub.drivers.errors import OptionsRefused, ProviderFailed

GROUP = "hostler.drivers"

# The package that a driver of ours stands on. The extra that brings it has the driver's name.
_SDKS = {"docker": "docker", "ec2": "boto3", "ssh": "paramiko", "winrm": "winrm"}


class _AnyOptions(DriverOptions):
    """Options of a driver that is not installed: stored as they are, because they cannot be
    validated.
    """

    model_config = ConfigDict(extra="allow")

    @classmethod
    def in_force(
        cls,
        present: Mapping[str, Any] | None,  # noqa: ARG003 - nobody knows whether they lead there
        started: Mapping[str, Any],
    ) -> Mapping[str, Any]:
        return started


class UnavailableDriver:
    """Stands in for a driver whose extra is not installed.

    No worker can be defined with it. Instances that an earlier hub has started with it stay in the
    registry: each call on them fails with the command that installs the extra.
    """

    name: ClassVar[str]
    capabilities: ClassVar[Capabilities] = Capabilities()
    options_model: ClassVar[type[DriverOptions]] = _AnyOptions

    def __init__(self, environment: Environment) -> None:
        pass

    async def create(self, spec: InstanceSpec) -> Mapping[str, Any]:  # noqa: ARG002
        self._fail()

    async def inspect(self, ref: InstanceRef) -> Inspection:  # noqa: ARG002
        self._fail()

    async def destroy(self, ref: InstanceRef) -> None:  # noqa: ARG002
        self._fail()

    async def list_owned(self, places: Sequence[Mapping[str, Any]]) -> Sequence[Owned]:
        if places:
            self._fail()
        return []

    async def aclose(self) -> None:
        """Do nothing: there is nothing to close."""

    def _fail(self) -> NoReturn:
        raise ProviderFailed(what_to_install(self.name))


def load() -> Mapping[str, type[Driver]]:
    """Load every installed driver, by name. A driver that cannot be imported stops the
    hub's start.
    """
    found: dict[str, type[Driver]] = {}
    for point in entry_points(group=GROUP):
        sdk = _SDKS.get(point.name)
        if sdk is None or find_spec(sdk) is not None:
            found[point.name] = point.load()
        else:
            found[point.name] = type(
                "UnavailableDriver", (UnavailableDriver,), {"name": point.name}
            )
    return found


def what_to_install(driver: str) -> str:
    """The sentence that tells how to install the extra of a driver."""
    return (
        f"driver {driver}: {_SDKS[driver]} is not installed where the hub runs; "
        f"pip install 'hostler[{driver}]' there, and restart the hub"
    )


def check_options(driver: type[Driver], options: Mapping[str, Any]) -> None:
    """Raise OptionsRefused with one sentence that names the option and what is wrong with it."""
    if issubclass(driver, UnavailableDriver):
        raise OptionsRefused(what_to_install(driver.name))
    try:
        driver.options_model.of(options)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        known = ", ".join(driver.options_model.model_fields) or "none"
        problem = f"{where}: {first['msg']}" if where else first["msg"]
        raise OptionsRefused(
            f"driver {driver.name} does not take these driver_options: {problem} "
            f"(it knows: {known})"
        ) from None
