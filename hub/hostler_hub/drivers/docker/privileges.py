"""Options through which a build could escape its container; only the hub's owner may allow them.

A person who may define workers must not thereby become root on the daemon's machine. So such
options are refused unless the hub's setting ``docker_allow`` names them. An entry of
``host_config`` that is not in the table is refused as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from hostler_hub.drivers.docker.options import DockerOptions
from hostler_hub.drivers.errors import OptionsRefused
from hostler_hub.runtime.docker_privileges import BIND

SETTING = "HOSTLER_DOCKER_ALLOW"

# docker-py's words for HostConfig, and what each needs (None: nothing, it only limits or tunes).
HOST_CONFIG: dict[str, str | None] = {
    "blkio_weight": None,
    "cap_drop": None,
    "cpu_shares": None,
    "cpuset_cpus": None,
    "dns": None,
    "dns_opt": None,
    "dns_search": None,
    "group_add": None,
    "mem_reservation": None,
    "mem_swappiness": None,
    "memswap_limit": None,
    "read_only": None,
    "runtime": None,
    "shm_size": None,
    "storage_opt": None,
    "sysctls": None,
    "tmpfs": None,
    "ulimits": None,
    "cap_add": "capabilities",
    "device_requests": "devices",
    "devices": "devices",
    "cgroupns": "host-namespaces",
    "ipc_mode": "host-namespaces",
    "pid_mode": "host-namespaces",
    "userns_mode": "host-namespaces",
    "uts_mode": "host-namespaces",
    "privileged": "privileged",
    "security_opt": "security-opt",
}

VOLUME_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]+")
_HARMLESS_SECURITY = ("no-new-privileges", "no-new-privileges:true", "no-new-privileges=true")


def check(options: DockerOptions, allowed: frozenset[str]) -> None:
    """Raise OptionsRefused for an option that is not allowed, with the word that would allow it."""
    for option, need in _needs(options):
        if need not in allowed:
            raise OptionsRefused(
                f"docker: driver_options.{option} leads out of the container: the hub's owner must "
                f"allow it ({SETTING}={need})"
            )


def _needs(options: DockerOptions) -> Iterator[tuple[str, str]]:
    yield from _host_config_needs(options)
    if options.network_mode is not None and _is_foreign(options.network_mode):
        yield f"network_mode: {options.network_mode}", "host-network"
    for network in options.networks:
        if _is_foreign(network):
            yield f"networks: {network}", "host-network"
    for volume in options.volumes:
        source = volume.partition(":")[0]
        # The very path, not what is below it: a link there could lead anywhere
        # (nomad CVE-2026-14896).
        if not VOLUME_NAME.fullmatch(source):
            yield f"volumes: {volume}", f"{BIND}{source}"


def _is_foreign(network: str) -> bool:
    """Whether `network` is the host's own network or that of another container."""
    return network == "host" or ":" in network


def _host_config_needs(options: DockerOptions) -> Iterator[tuple[str, str]]:
    for key, value in options.host_config.items():
        if key not in HOST_CONFIG:
            raise OptionsRefused(
                f"docker: driver_options.host_config.{key} is unknown or has an option of its own "
                f"(there are: {', '.join(sorted(HOST_CONFIG))})"
            )
        need = HOST_CONFIG[key]
        if need is None or not value:
            continue
        if key == "security_opt" and all(word in _HARMLESS_SECURITY for word in value):
            continue
        yield f"host_config.{key}", need
