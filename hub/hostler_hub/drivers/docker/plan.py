"""Translates options into the SDK's arguments for creating a container. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hostler_hub.drivers.contract import InstanceSpec
from hostler_hub.drivers.docker import labels, payload
from hostler_hub.drivers.docker.hub_route import MOUNT, HubRoute
from hostler_hub.drivers.docker.options import DockerOptions

# The agent's demand to end its jobs and go at once; SIGTERM lets running commands finish.
STOP_SIGNAL = "SIGQUIT"
# An agent writes little, but whoever is root in the container may write to the log as well.
LOG = {"type": "json-file", "config": {"max-size": "4m", "max-file": "1"}}


@dataclass(frozen=True, slots=True)
class Plan:
    """``create`` and ``host`` are arguments of create_container and create_host_config."""

    name: str
    create: Mapping[str, Any]
    host: Mapping[str, Any]
    further_networks: Sequence[str]


def container(
    hub: str, spec: InstanceSpec, options: DockerOptions, image: str, route: HubRoute
) -> Plan:
    own = labels.of(spec.mark(hub))
    create: dict[str, Any] = {
        "image": image,
        "entrypoint": [*options.entrypoint, *_command(hub, spec, options)],
        "command": [],
        "name": labels.name(spec),
        "hostname": spec.worker,
        "labels": {**options.labels, **own},
        "environment": dict(options.environment),
        "working_dir": payload.HOME,
        "stop_signal": STOP_SIGNAL,
        "stop_timeout": max(1, round(options.stop_timeout_s)),
        "healthcheck": {"test": ["NONE"]},  # the image's looks for a service that we do not start
    }
    if options.user is not None:
        create["user"] = options.user
    if options.platform is not None:
        create["platform"] = options.platform
    networks = list(options.networks)
    return Plan(create["name"], create, _host(options, own, route), networks[1:])


def _command(hub: str, spec: InstanceSpec, options: DockerOptions) -> list[str]:
    # Isolated: what the image's environment says of Python is for builds.
    agent = options.command or [options.python, "-I", "-S", f"{payload.HOME}/{payload.ARCHIVE}"]
    config = f"{payload.HOME}/{payload.CONFIG}"
    return [*agent, "run", "--config", config, *spec.mark(hub, "docker").arguments()]


def _host(options: DockerOptions, own: Mapping[str, str], route: HubRoute) -> dict[str, Any]:
    host: dict[str, Any] = {
        **options.host_config,
        "init": options.init,
        "pids_limit": options.pids,
        "mounts": _mounts(options, own, route),
        "log_config": LOG,
    }
    if options.networks or options.network_mode:
        host["network_mode"] = (*options.networks, options.network_mode)[0]
    if options.memory is not None:
        host["mem_limit"] = options.memory
        host.setdefault("memswap_limit", options.memory)  # else as much again of swap
    if options.cpus is not None:
        host["nano_cpus"] = round(options.cpus * 1e9)
    if options.extra_hosts:
        host["extra_hosts"] = dict(options.extra_hosts)
    return host


def _mounts(
    options: DockerOptions, own_labels: Mapping[str, str], route: HubRoute
) -> list[dict[str, Any]]:
    # Without a name the volume goes with its container; with labels it is found if it does not.
    own = {"Type": "volume", "Target": payload.HOME, "VolumeOptions": {"Labels": dict(own_labels)}}
    mounts: list[dict[str, Any]] = [own, *map(_mount, options.volumes)]
    if route.directory is not None:
        source = str(route.directory)
        mounts.append({"Type": "bind", "Source": source, "Target": MOUNT, "ReadOnly": True})
    return mounts


def _mount(volume: str) -> dict[str, Any]:
    source, _, rest = volume.partition(":")
    target, _, mode = rest.partition(":")
    kind = "bind" if source.startswith("/") else "volume"
    return {"Type": kind, "Source": source, "Target": target, "ReadOnly": mode == "ro"}
