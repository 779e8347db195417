"""boto3's client of one region, made anew when its credentials have changed.

boto3 reads credentials once per client. Keys are rotated while a hub runs, and a hub that went on
with the old ones could end none of its instances. So before each call the secrets of option
`credentials` are resolved again, and AWS's own files are looked at, whose profiles may have
changed. Credentials from elsewhere (a credential process, single sign-on) are asked for again once
EC2 has refused them; those of an instance's role boto3 renews by itself.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

from hostler_hub.drivers.ec2 import describe_parser
from hostler_hub.drivers.ec2.options import Ec2Options
from hostler_hub.drivers.errors import OptionsRefused
from hostler_hub.runtime.errors import SecretRefused
from hostler_hub.runtime.secrets import Secrets

THREADS = 8
_AWS_FILES = {
    "AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials",
    "AWS_CONFIG_FILE": "~/.aws/config",
}


class RenewedClient:
    """The client of one region with one set of credentials. Used by several threads."""

    def __init__(self, options: Ec2Options, secrets: Secrets) -> None:
        self._options = options
        self._secrets = secrets
        self._lock = threading.Lock()
        self._client: Any = None
        self._made_with: Hashable = None

    def current(self) -> Any:
        """The client for a call that is made now. Raises OptionsRefused without secrets, and what
        boto3 raises for a profile that it cannot read.
        """
        keys = self._keys()
        material = (*keys.items(), *(() if keys else _files_seen()))
        with self._lock:  # to make one takes half a second of CPU time
            if self._client is None or material != self._made_with:
                self._drop()
                self._client = _client(self._options, keys)
                self._made_with = material
            return self._client

    def refused(self) -> None:
        """Note that EC2 has refused the credentials: the next call looks for them anew."""
        with self._lock:
            self._drop()

    def close(self) -> None:
        """Close the connections. A call in progress ends by its own timeout."""
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _keys(self) -> dict[str, str]:
        given = self._options.credentials
        if given is None:
            return {}
        try:
            return {
                "aws_access_key_id": self._secrets.resolve(given.access_key),
                "aws_secret_access_key": self._secrets.resolve(given.secret_key),
            }
        except SecretRefused as error:
            raise OptionsRefused(f"ec2: option credentials: {error}") from error


def _files_seen() -> tuple[Hashable, ...]:
    """What shows whether AWS's configuration files are still those that were read."""
    paths = (Path(os.environ.get(name) or default) for name, default in _AWS_FILES.items())
    return tuple(map(_seen, paths))


def _seen(path: Path) -> Hashable:
    try:
        found = path.expanduser().stat()
    except (OSError, RuntimeError):  # the latter without a home
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _client(options: Ec2Options, keys: Mapping[str, str]) -> Any:
    # A hub without workers on EC2 need not know of it: that is a second of its start.
    import boto3  # noqa: PLC0415
    from botocore.config import Config  # noqa: PLC0415

    session = boto3.Session(profile_name=options.profile, region_name=options.region)
    config = Config(
        connect_timeout=5,
        read_timeout=30,
        max_pool_connections=THREADS,
        # No retries by botocore: the driver's own know which calls may be repeated (P1).
        retries={"total_max_attempts": 1, "mode": "standard"},
    )
    client = session.client("ec2", endpoint_url=options.endpoint_url, config=config, **keys)
    describe_parser.install(client)
    return client
