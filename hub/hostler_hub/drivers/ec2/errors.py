"""Classifies EC2's errors: who is to blame, whether an instance may have been made, what to do."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    InvalidRegionError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
)

from hostler_hub.drivers.errors import DriverError, OptionsRefused, ProviderFailed


class Meaning(Enum):
    """The meaning of a failed call: what the driver does next depends on it."""

    THROTTLED = auto()  # too many calls: wait, ask the same again
    NO_CAPACITY = auto()  # another type or zone may have some (P5)
    TOKEN_SPENT = auto()  # this client token belongs to another request or a dead instance (P2)
    NOT_FOUND = auto()
    WRONG_STATE = auto()  # not while the instance is as it is
    REFUSED = auto()  # will never work like this: nothing was made
    UNCLEAR = auto()  # it may have happened all the same (P1)


_CODES = {
    Meaning.THROTTLED: {
        "RequestLimitExceeded",
        "Throttling",
        "ThrottlingException",
        "RequestThrottled",
        "RequestThrottledException",
        "TooManyRequestsException",
        "EC2ThrottledException",
    },
    Meaning.NO_CAPACITY: {
        "InsufficientInstanceCapacity",
        "InsufficientHostCapacity",
        "InsufficientReservedInstanceCapacity",
        "InsufficientCapacity",
        "InsufficientFreeAddressesInSubnet",
        "SpotMaxPriceTooLow",
        "MaxSpotInstanceCountExceeded",
        "InstanceLimitExceeded",
        "VcpuLimitExceeded",
        "Unsupported",  # this type is not offered in this zone
    },
    Meaning.TOKEN_SPENT: {"IdempotentParameterMismatch", "IdempotentInstanceTerminated"},
    Meaning.WRONG_STATE: {"IncorrectInstanceState"},
    Meaning.NOT_FOUND: {"InvalidInstanceID.NotFound", "InvalidInstanceID.Malformed"},
    Meaning.UNCLEAR: {
        "InternalError",
        "InternalFailure",
        "ServiceUnavailable",
        "Unavailable",
        "RequestTimeout",
        "RequestExpired",
    },
}
_MEANINGS = {code: meaning for meaning, codes in _CODES.items() for code in codes}

_OF_CREDENTIALS = {
    *(
        "AuthFailure",
        "InvalidClientTokenId",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    ),
    *("ExpiredToken", "ExpiredTokenException", "RequestExpired", "NoCredentialsError"),
    *("PartialCredentialsError", "CredentialRetrievalError", "TokenRetrievalError"),
}

# What to do about the commonest mistakes; the provider's own words stand before it.
_ADVICE = {
    "AuthFailure": "check the credentials (option credentials or profile)",
    "UnauthorizedOperation": "give the hub's role or user the permission that is named",
    "InvalidClientTokenId": "check the access key (option credentials)",
    "SignatureDoesNotMatch": "check the secret key (option credentials)",
    "InvalidAMIID.NotFound": "check option ami: images have another id in every region",
    "InvalidAMIID.Malformed": "check option ami",
    "InvalidSubnetID.NotFound": "check option subnets",
    "InvalidGroup.NotFound": "check option security_groups: ids, and of the subnet's network",
    "InvalidKeyPair.NotFound": "check option key_name",
    "InvalidParameterValue": "check the option that is named",
    "OptInRequired": "subscribe to the image or the region first",
    "InvalidBlockDeviceMapping": "check option volumes",
    "InvalidAllocationID.NotFound": "check option elastic_ip",
    "InvalidInstanceType": "check option instance_types",
    "NoCredentialsError": "give option credentials or profile, or the hub's machine a role",
    "PartialCredentialsError": "complete option profile's configuration on the hub's machine",
    "ProfileNotFound": "check option profile: it is one of the hub's own machine",
    "VcpuLimitExceeded": "have AWS raise the quota, or lower the group's max_instances",
    "InstanceLimitExceeded": "have AWS raise the quota, or lower the group's max_instances",
    "MaxSpotInstanceCountExceeded": "have AWS raise the quota, or lower the group's max_instances",
    "InsufficientInstanceCapacity": "name more in options instance_types and subnets",
    "InsufficientFreeAddressesInSubnet": "name more in option subnets",
    "SpotMaxPriceTooLow": "raise option spot.max_price, or leave it out",
    "UnsupportedOperation": "only machines with an EBS root volume can be stopped (option at_end)",
    "InvalidRegionError": "check option region",
    "EndpointConnectionError": "check options region and endpoint_url: is that host reached?",
    "ParamValidationError": "check the option that is named",
    "Unsupported": "name other instance_types or subnets",
}


_ADVICE_ELSE = "check options endpoint_url and region: is that EC2's service?"


def meaning(error: Exception) -> Meaning:
    """Classify an exception of boto3."""
    if isinstance(error, ClientError):
        known = _MEANINGS.get(_code(error))
        if known is not None:
            return known
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return Meaning.UNCLEAR if status >= 500 else Meaning.REFUSED
    if isinstance(
        error, (NoCredentialsError, PartialCredentialsError, ProfileNotFound, NoRegionError)
    ):
        return Meaning.REFUSED
    if isinstance(error, (ParamValidationError, InvalidRegionError, ValueError, TypeError)):
        return Meaning.REFUSED  # the request could not even be written
    return Meaning.UNCLEAR  # a connection that broke: nobody knows how far the request came


def is_of_credentials(error: Exception) -> bool:
    """Whether EC2 refused the credentials, or boto3 has found none."""
    code = _code(error) if isinstance(error, ClientError) else type(error).__name__
    return code in _OF_CREDENTIALS


def translated(error: Exception, doing: str) -> DriverError:
    """Translate into a DriverError whose text has what was tried, EC2's message, and advice."""
    code = _code(error) if isinstance(error, ClientError) else type(error).__name__
    words = (
        error.response.get("Error", {}).get("Message", "")
        if isinstance(error, ClientError)
        else str(error)
    )
    is_of_service = isinstance(error, (ClientError, BotoCoreError))
    advice = _ADVICE.get(code) or ("" if is_of_service else _ADVICE_ELSE)
    text = f"ec2: {doing}: {code}: {words[:500]}" + (f" ({advice})" if advice else "")
    kind: Callable[[str], DriverError] = ProviderFailed
    if meaning(error) is Meaning.REFUSED:
        kind = OptionsRefused
    return kind(text)


class CallFailed(Exception):
    """A call that EC2 refused or did not answer.

    ``error`` is the exception of boto3 or its parts, ``meaning`` its classification,
    ``driver_error`` the exception that the driver raises if it cannot recover.
    """

    def __init__(self, error: Exception, doing: str) -> None:
        super().__init__(str(error))
        self.error = error
        self.meaning = meaning(error)
        self.driver_error = translated(error, doing)


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))
