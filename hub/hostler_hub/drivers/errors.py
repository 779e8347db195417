"""Exceptions that drivers raise.

    DriverError             a driver could not do what it was asked
      OptionsRefused        the owner's options can never work
      ProviderFailed        the provider refused or broke; trying again later may help
        docker.errors       what a Docker daemon answered
      HandleRefused         a stored handle cannot be read
    HostFailed              a machine did not carry out a request; drivers translate it

Transports have errors of their own (`transports.errors`), which drivers translate as well.
"""

from __future__ import annotations

from collections.abc import Collection


class DriverError(Exception):
    """A driver could not do what it was asked. The message names the driver and the reason."""


class OptionsRefused(DriverError):
    """The owner's options can never work. Trying again does not help."""


class ProviderFailed(DriverError):
    """The provider refused or broke. Trying again later may help."""


class HandleRefused(DriverError):
    """An instance's stored handle cannot be read by this version of its driver."""

    @classmethod
    def of_version(
        cls, driver: str, instance: str, found: object, understood: Collection[int]
    ) -> HandleRefused:
        """The exception for a handle whose version is missing or not understood."""
        known = ", ".join(map(str, sorted(understood)))
        return cls(
            f"{driver}: the handle of instance {instance} has version {found!r}; this hub "
            f"understands {known}. Was it written by a newer hub?"
        )


class HostFailed(Exception):
    """A machine did not carry out a request of `hosts.host.Host`. The text is the machine's
    message.

    `ran` is False if the request was certainly not carried out; `kind` is one of
    `hostler_agent.instances.errors.KINDS`, or empty.
    """

    def __init__(self, text: str, *, kind: str = "", ran: bool = True) -> None:
        super().__init__(text)
        self.kind = kind
        self.ran = ran
