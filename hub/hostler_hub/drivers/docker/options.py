"""The options of a worker in a container."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hostler_hub.drivers.contract import DriverOptions
from hostler_hub.runtime.secrets import SecretRef

LOCAL_DAEMON = "unix:///var/run/docker.sock"
LABEL_PREFIX = "io.hostler."
PIDS = 4096
HOUR_S = 3600.0

Word = Annotated[str, Field(min_length=1, max_length=4096)]
Seconds = Annotated[float, Field(gt=0, le=HOUR_S)]
Memory = Annotated[str, Field(pattern=r"^[0-9]+[bkmgBKMG]?$")]
ContextName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$")]

_HOST = re.compile(r"unix:///\S+|tcp://[^/\s@]+:[0-9]+")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_HUB_URL = re.compile(r"wss://[^/\s@?#]+(/[^\s?#]*)?")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Tls(_Part):
    """TLS material: ``ca`` verifies the daemon; ``cert`` and ``key`` authenticate the hub to it."""

    ca: SecretRef
    cert: SecretRef
    key: SecretRef


class RegistryLogin(_Part):
    """The account that pulls an image from its registry."""

    username: Word
    password: SecretRef


class DockerOptions(DriverOptions):
    """Options of a worker in a container."""

    # --- the image: by name, or built of a Dockerfile's text and a directory at the hub
    image: Word | None = None
    pull: Literal["always", "missing", "never"] = "missing"
    pull_timeout_s: Seconds = 300.0
    registry: RegistryLogin | None = None
    dockerfile: Word | None = None
    context: ContextName | None = None
    build_args: Mapping[str, str] = {}
    target: Word | None = None
    build_timeout_s: Seconds = 900.0
    platform: Word | None = None

    # --- what runs in it
    python: Word = "python3"
    command: Sequence[Word] | None = None  # the agent of an image that carries one
    entrypoint: Sequence[Word] = ()  # runs the agent's command; the image's own is not used
    user: Word | None = None
    environment: Mapping[str, str] = {}
    init: bool = True
    stop_timeout_s: Annotated[float, Field(ge=0, le=60)] = 10.0
    containment: Literal["auto", "cgroup2", "cgroup1", "subreaper"] = "auto"

    # --- what it may have
    volumes: Sequence[Word] = ()  # NAME:/path[:ro], or /host/path:/path[:ro] where allowed
    networks: Sequence[Word] = ()
    network_mode: Word | None = None
    extra_hosts: Mapping[str, str] = {}
    memory: int | Memory | None = None
    cpus: Annotated[float, Field(gt=0, le=4096)] | None = None
    pids: Annotated[int, Field(ge=16)] = PIDS
    labels: Mapping[str, str] = {}
    host_config: Mapping[str, Any] = {}

    # --- where it is, and how it finds the hub
    docker_host: str = LOCAL_DAEMON
    tls: Tls | None = None
    hub_url: str | None = None
    hub_ca: SecretRef | None = None

    @property
    def place(self) -> str:
        return self.docker_host

    @property
    def failure_domains(self) -> tuple[str, str]:
        """The image on its daemon, and the daemon."""
        daemon = f"daemon {self.docker_host}"
        return f"image {self.image or self._built_image} on {daemon}", daemon

    @property
    def _built_image(self) -> str:
        """A name for the image that is built of the Dockerfile: the same for the same text."""
        made_of = [self.dockerfile, self.context, sorted(self.build_args.items()), self.target]
        return f"built of {hashlib.sha256(repr(made_of).encode()).hexdigest()[:12]}"

    @property
    def is_local(self) -> bool:
        """Whether the daemon runs on this machine, so that it can mount files of the hub."""
        return self.docker_host.startswith("unix://")

    @model_validator(mode="after")
    def _fits_together(self) -> DockerOptions:
        for is_wrong, why in self._mistakes():
            if is_wrong:
                raise ValueError(why)
        return self

    def _mistakes(self) -> Sequence[tuple[bool, str]]:
        builds = self.dockerfile is not None or self.context is not None
        url = self.hub_url
        return (
            (builds == (self.image is not None), "give either image, or dockerfile and context"),
            (not _HOST.fullmatch(self.docker_host), "docker_host: unix:///PATH or tcp://HOST:PORT"),
            (
                self.tls is None and not self.is_local and not _is_loopback(self.docker_host),
                f"tls: {self.docker_host} without it is open to whoever can reach it",
            ),
            (self.tls is not None and self.is_local, "tls: a unix:// socket has none"),
            (url is not None and not _HUB_URL.fullmatch(url), "hub_url: must be wss://NAME"),
            (
                any(label.startswith(LABEL_PREFIX) for label in self.labels),
                f"labels: {LABEL_PREFIX}* are the hub's own",
            ),
            (
                bool(self.networks) and self.network_mode is not None,
                "networks and network_mode exclude each other",
            ),
        )


def _is_loopback(url: str) -> bool:
    return urlsplit(url).hostname in _LOOPBACK
