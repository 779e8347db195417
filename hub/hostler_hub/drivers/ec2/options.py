"""The options of an EC2 worker."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hostler_agent.instances.mark import Fields
from hostler_hub.drivers.contract import DriverOptions
from hostler_hub.runtime.secrets import SecretRef

_STRICT = ConfigDict(extra="forbid", frozen=True, strict=True)

# EC2 says which regions, types and prices there are. What is checked here is only what they may do
# to a host name or a request.
Region = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
InstanceType = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
Tag = Annotated[str, Field(max_length=256)]
Price = Annotated[str, Field(pattern=r"^\d{1,6}(\.\d{1,18})?$")]

TAG_PREFIX = "hostler:"
MARK = Fields(TAG_PREFIX)
"""The names of the tags that carry an instance's mark."""
RECIPE = f"{TAG_PREFIX}recipe"
SPARE = f"{TAG_PREFIX}spare"

# Options that a spare is given anew at each start, and those that are not about the machine.
_NOT_OF_THE_MACHINE = {
    *("python", "hub_url", "insecure", "orphan_timeout_s"),
    *("at_end", "profile", "credentials"),
}


class Image(BaseModel):
    """The newest AMI with one of these owners whose name matches the pattern `name`."""

    model_config = _STRICT

    owners: Annotated[list[str], Field(min_length=1, max_length=10)]
    name: Annotated[str, Field(min_length=1, max_length=256)]
    architecture: Literal["x86_64", "arm64"] = "x86_64"


class Volume(BaseModel):
    """A block device. If ``device`` is that of the AMI's root volume, the root volume is
    changed.
    """

    model_config = _STRICT

    device: Annotated[str, Field(pattern=r"^[A-Za-z0-9/]{1,64}$")]
    size_gib: Annotated[int, Field(ge=1, le=65536)] | None = None
    type: Literal["gp2", "gp3", "io1", "io2", "st1", "sc1", "standard"] = "gp3"
    iops: Annotated[int, Field(ge=100, le=256000)] | None = None
    encrypted: bool | None = None
    snapshot: Annotated[str, Field(pattern=r"^snap-[0-9a-f]+$")] | None = None


class Spot(BaseModel):
    """Spot capacity. `max_price` is per hour; None: up to the on-demand price."""

    model_config = _STRICT

    max_price: Price | None = None


class Credentials(BaseModel):
    """References to access keys. Without them boto3 looks for credentials: profile, environment,
    instance role.
    """

    model_config = _STRICT

    access_key: SecretRef
    secret_key: SecretRef


class Ec2Options(DriverOptions):
    """Options of an EC2 worker. Instance types and subnets are tried in the order of the lists."""

    region: Region
    ami: Annotated[str, Field(pattern=r"^ami-[0-9a-f]+$")] | None = None
    image: Image | None = None
    instance_types: Annotated[list[InstanceType], Field(min_length=1, max_length=20)]
    spot: Spot | None = None
    at_end: Literal["terminate", "stop"] = "terminate"
    subnets: Annotated[list[str], Field(max_length=20, default_factory=list)]
    security_groups: Annotated[list[str], Field(max_length=16, default_factory=list)]
    instance_profile: str | None = None
    key_name: str | None = None
    elastic_ip: Annotated[str, Field(pattern=r"^eipalloc-[0-9a-f]+$")] | None = None
    volumes: Annotated[list[Volume], Field(max_length=20, default_factory=list)]
    tags: Annotated[dict[str, Tag], Field(max_length=40, default_factory=dict)]
    system: Literal["linux", "windows"] = "linux"
    python: str = "python3"
    hub_url: Annotated[str, Field(pattern=r"^wss?://[^/\s@]+$")] | None = None
    insecure: bool = False  # plain ws:// to the hub over a network that is trusted
    orphan_timeout_s: Annotated[int, Field(ge=60)] = 1800
    profile: str | None = None  # of the hub's own AWS configuration
    credentials: Credentials | None = None
    endpoint_url: Annotated[str, Field(pattern=r"^https?://[^\s@]+$")] | None = None

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if (self.ami is None) == (self.image is None):
            raise ValueError("give ami (an id) or image (owners and name), one of the two")
        reserved = [name for name in self.tags if name.startswith((TAG_PREFIX, "aws:"))]
        if reserved:
            raise ValueError(f"tags: {reserved[0]} is reserved")
        if "Name" in self.tags and len(self.tags["Name"]) == 0:
            raise ValueError("tags: Name is empty")
        if self.profile is not None and self.credentials is not None:
            raise ValueError("give profile or credentials, not both")
        if self.at_end == "stop" and self.spot is not None:
            raise ValueError(
                "at_end: stop does not go with spot: EC2 takes spot instances back, it cannot stop "
                "and start them; leave one of the two out"
            )
        return self

    @property
    def place(self) -> str:
        return f"{self.endpoint_url or 'aws'}/{self.region}"

    @property
    def failure_domains(self) -> tuple[str, str, str, str]:
        """The image on its instance types, the types, and the image, each in the region; the
        region.
        """
        where = f"region {self.region}"
        if self.endpoint_url:
            where = f"{where} of {self.endpoint_url}"
        types = f"instance type {' or '.join(self.instance_types)}"
        image = f"image {self.ami or (self.image.name if self.image else '')}"
        return f"{image} on {types} in {where}", f"{types} in {where}", f"{image} in {where}", where

    @property
    def recipe(self) -> str:
        if self.at_end != "stop":
            return ""
        made_of = self.model_dump(mode="json", exclude=_NOT_OF_THE_MACHINE)
        return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:16]
