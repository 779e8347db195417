"""The agent's configuration, from a file or from the command line.

The file is JSON. It and the token file that it names must be readable by their owner only. Both
sources yield the same frozen Config; any mistake in them is a ConfigurationError of one line.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional
from urllib.parse import urlsplit

from hostler_agent import machine
from hostler_agent.errors import ConfigurationError

NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
INSTANCE = re.compile(r"[0-9A-HJKMNP-TV-Z]{26}")
"""The format of a ULID."""

MAX_FILE_BYTES = 64 * 1024
MAX_UID = 2**32 - 1
_UIDS = re.compile(r"([0-9]{1,10})-([0-9]{1,10})")

_REQUIRED = {"hub": str, "name": str, "workdir": str, "token_file": str}
_OPTIONAL = {
    "instance": str,
    "epoch": int,
    "hub_socket": str,
    "ca_file": str,
    "containment": str,
    "insecure": bool,
    "orphan_timeout_s": int,
    "at_end": str,
    "interruptions": str,
    "run_as": str,
    "build_groups": list,
    "build_uids": str,
    "no_new_privileges": bool,
    "is_container": bool,
}

ENDS = ("exit", "poweroff", "poweroff_if_orphaned")
PROVIDERS = ("ec2",)
BUILD_USER, AGENT = RUN_AS = ("build_user", "agent")
BUILD_UIDS = (60800, 61055)
"""The first and the last uid of the build users, both included. Neither distributions nor systemd
give them to anybody, and they exist in a user namespace of 65,536 ids too."""
ORPHAN_TIMEOUT_S = 1800


@dataclass(frozen=True)
class Config:
    """The agent's configuration.

    `instance` and `epoch` are None for a permanent worker. `ca_file` replaces the system's
    authorities. `insecure` permits plain ws:// to other machines. With `hub_socket`, a Unix socket
    that leads to the hub, the host in `hub` is only a name, as in a container without a network. An
    idle agent of a latent worker leaves after `orphan_timeout_s` seconds without contact to its hub
    (0: never). `at_end` says what happens to the machine when the agent leaves for that reason or
    because the hub told it to: `exit` leaves the machine on, `poweroff` switches it off, and
    `poweroff_if_orphaned` switches it off only without contact to the hub.

    `run_as` says as which operating-system user builds run: `build_user` gives each slot one of its
    own, out of `build_uids`, where the agent has the rights to do so; `agent` is the agent's own.
    `build_groups` are groups that the build users are in besides. With `no_new_privileges` no build
    gains rights by programs such as sudo.
    """

    hub: str
    name: str
    password: str = field(repr=False)
    workdir: Path
    instance: Optional[str] = None
    epoch: Optional[int] = None
    hub_socket: Optional[Path] = None
    ca_file: Optional[Path] = None
    containment: str = "auto"
    insecure: bool = False
    orphan_timeout_s: int = ORPHAN_TIMEOUT_S
    at_end: str = "exit"
    interruptions: Optional[str] = None
    """The provider whose notices, that the machine will be taken away, the agent polls for."""
    run_as: str = BUILD_USER
    build_groups: tuple[str, ...] = ()
    build_uids: tuple[int, int] = BUILD_UIDS
    no_new_privileges: bool = False
    is_container: bool = False
    """Whether the instance is a container of its own, as its driver knows."""
    token_file: Optional[Path] = None
    """The file that the password was read from."""
    kept: Optional[Mapping[str, str]] = field(default=None, repr=False)
    """What the service manager kept for this process, see `hub.credentials`: it has the password
    too."""

    @property
    def root_name(self) -> str:
        """The name that marks this agent's jobs: the instance, or else the worker."""
        return self.instance or self.name


def load(path: Path, kept: Optional[Mapping[str, str]] = None) -> Config:
    """Load the configuration from a JSON file; relative paths in it start at its directory. Raises
    ConfigurationError.
    """
    text = _read_private("configuration", path)
    try:
        options = json.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"configuration {path} is not JSON: {error}") from error
    if not isinstance(options, dict):
        raise ConfigurationError(f"configuration {path} is not a JSON object")
    return from_options(options, path.parent, kept)


def from_options(
    options: Mapping[str, Any], directory: Path, kept: Optional[Mapping[str, str]] = None
) -> Config:
    """Build the configuration from a mapping; a value of None counts as absent. Raises
    ConfigurationError.

    `kept`: see `Config.kept`. With it the token file is not read.
    """
    options = {key: value for key, value in options.items() if value is not None}
    _check_options(options)
    token_file = directory / options["token_file"]
    config = Config(
        hub=options["hub"],
        name=options["name"],
        password=kept["token"] if kept else _read_private("token file", token_file).strip(),
        workdir=(directory / options["workdir"]).absolute(),
        instance=options.get("instance"),
        epoch=options.get("epoch"),
        hub_socket=directory / options["hub_socket"] if "hub_socket" in options else None,
        ca_file=directory / options["ca_file"] if "ca_file" in options else None,
        containment=options.get("containment", "auto"),
        insecure=options.get("insecure", False),
        orphan_timeout_s=options.get("orphan_timeout_s", ORPHAN_TIMEOUT_S),
        at_end=options.get("at_end", "exit"),
        interruptions=options.get("interruptions"),
        run_as=options.get("run_as", BUILD_USER),
        build_groups=_groups(options.get("build_groups", [])),
        build_uids=_uids(options.get("build_uids", "{}-{}".format(*BUILD_UIDS))),
        no_new_privileges=options.get("no_new_privileges", False),
        is_container=options.get("is_container", False),
        token_file=token_file.absolute(),
        kept=kept,
    )
    _check(config, token_file)
    return config


def _check_options(options: Mapping[str, Any]) -> None:
    missing = [key for key in _REQUIRED if key not in options]
    if missing:
        raise ConfigurationError(f"option {missing[0]!r} is missing")
    kinds = {**_REQUIRED, **_OPTIONAL}
    for key, value in options.items():
        if key not in kinds:
            raise ConfigurationError(f"option {key!r} is unknown (there are {', '.join(kinds)})")
        if type(value) is not kinds[key]:
            raise ConfigurationError(f"option {key!r} must be of type {kinds[key].__name__}")


def _check(config: Config, token_file: Path) -> None:
    if not NAME.fullmatch(config.name):
        raise ConfigurationError(
            f"option 'name' must be 1 to 63 of a-z, 0-9 and inner hyphens, not {config.name!r}"
        )
    if config.instance is not None and not INSTANCE.fullmatch(config.instance):
        raise ConfigurationError(f"option 'instance' must be a ULID, not {config.instance!r}")
    if config.epoch is not None and config.epoch < 0:
        raise ConfigurationError("option 'epoch' must not be negative")
    if config.orphan_timeout_s < 0:
        raise ConfigurationError("option 'orphan_timeout_s' must not be negative")
    for name, allowed in (("at_end", ENDS), ("interruptions", PROVIDERS), ("run_as", RUN_AS)):
        if getattr(config, name) not in (None, *allowed):
            raise ConfigurationError(f"option {name!r} must be one of {', '.join(allowed)}")
    if not config.password:
        raise ConfigurationError(f"token file {token_file} is empty")
    if not config.password.isprintable():
        raise ConfigurationError(f"token file {token_file} must hold one line of printable text")
    if config.ca_file is not None and not config.ca_file.is_file():
        raise ConfigurationError(f"option 'ca_file': {config.ca_file} is not a file")
    _check_hub(config)


def _groups(names: list[Any]) -> tuple[str, ...]:
    if not all(isinstance(name, str) and name for name in names):
        raise ConfigurationError("option 'build_groups' must be a list of groups' names")
    return tuple(names)


def _uids(text: str) -> tuple[int, int]:
    """The first and the last uid of a range `FIRST-LAST`. Raises ConfigurationError."""
    found = _UIDS.fullmatch(text)
    first, last = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 0 < first <= last < MAX_UID:
        raise ConfigurationError(
            f"option 'build_uids' must be a range of uids FIRST-LAST from 1 to {MAX_UID - 1}, "
            f"not {text!r}"
        )
    return first, last


def _check_hub(config: Config) -> None:
    try:
        url = urlsplit(config.hub)
        host, _ = url.hostname, url.port
    except ValueError as error:
        raise ConfigurationError(f"option 'hub': {error}") from error
    if url.scheme not in ("ws", "wss") or not host:
        raise ConfigurationError("option 'hub' must be a ws:// or wss:// URL")
    if url.username is not None or url.query or url.fragment:
        raise ConfigurationError("option 'hub' must have no credentials, query or fragment in it")
    stays_here = config.hub_socket is not None or is_loopback(host)
    if url.scheme == "ws" and not config.insecure and not stays_here:
        raise ConfigurationError(
            f"option 'hub': plain ws:// to {host} would show the token to the network; use wss://, "
            "or set 'insecure' if the network is trusted"
        )


def is_loopback(host: str) -> bool:
    """Whether the host name always means this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _read_private(what: str, path: Path) -> str:
    try:
        if not machine.is_private(path):
            hint = machine.PRIVACY_HINT.replace("FILE", str(path))
            raise ConfigurationError(f"{what} {path} can be read by others; {hint}")
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_FILE_BYTES + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{what} {path} cannot be read: {error}") from error
    if len(text) > MAX_FILE_BYTES:
        raise ConfigurationError(f"{what} {path} is larger than {MAX_FILE_BYTES} bytes")
    return text
