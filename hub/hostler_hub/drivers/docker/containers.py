"""The driver's calls about containers. They block: ``Daemon.ask`` runs them in a thread."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hostler_hub.drivers.contract import Owned
from hostler_hub.drivers.docker import labels, payload, status
from hostler_hub.drivers.docker.copies import Copies, is_anonymous
from hostler_hub.drivers.docker.daemon import Endpoint
from hostler_hub.drivers.docker.handle import DockerHandle
from hostler_hub.drivers.docker.plan import Plan
from hostler_hub.drivers.docker.user import owner_of
from hostler_hub.drivers.errors import OptionsRefused, ProviderFailed

if TYPE_CHECKING:
    from docker import APIClient


def make(client: APIClient, plan: Plan) -> str:
    """Make a container and return its id."""
    from docker.errors import DockerException  # noqa: PLC0415 - the SDK comes with the first call

    try:
        host = client.create_host_config(**plan.host)
    except (TypeError, ValueError, DockerException) as error:
        raise OptionsRefused(f"docker: driver_options.host_config: {error}") from error
    return str(client.create_container(**plan.create, host_config=host)["Id"])


def adopt(client: APIClient, plan: Plan) -> str:
    """The id of the container that an earlier call made under this name (409, G1)."""
    seen = client.inspect_container(plan.name)
    carried = seen["Config"]["Labels"] or {}
    if labels.mark_of(carried) != labels.mark_of(plan.create["labels"]):
        raise ProviderFailed(f"docker: the name {plan.name} is taken by another's container")
    return str(seen["Id"])


def start(
    client: APIClient, seen: Mapping[str, Any], plan: Plan, files: Sequence[payload.File], user: str
) -> None:
    """Connect a container to its networks, copy the files into it, and start it."""
    container = seen["Id"]
    joined = seen["NetworkSettings"]["Networks"]
    for network in plan.further_networks:
        if network not in joined:
            client.connect_container_to_network(container, network)
    owner = owner_of(client, container, user)
    client.put_archive(container, payload.HOME, payload.pack(files, owner))
    client.start(container)


def find(client: APIClient, hub: str, instance: str, handle: DockerHandle | None) -> str | None:
    """The id of the handle's container; of the instance's own container if no id was recorded."""
    if handle is not None and handle.container:
        return handle.container
    found = own(client, hub, instance, None)
    return found[0] if found else None


def own(client: APIClient, hub: str, instance: str, handle: DockerHandle | None) -> list[str]:
    """The ids of the instance's own containers, running or not: the recorded one, or else those
    that are not copies. (The daemon refuses a second one, so there is at most one.)
    """
    listed = client.containers(all=True, filters=labels.of_instance(hub, instance))
    if handle is not None and handle.container:
        return [each["Id"] for each in listed if each["Id"] == handle.container]
    copies = Copies(client)
    return [each["Id"] for each in listed if not copies.evidence(each)]


def end(client: APIClient, container: str, grace_s: int) -> None:
    """Stop the container, kill it if it still runs after the grace period, and remove it with its
    volumes.
    """
    from docker.errors import APIError, NotFound  # noqa: PLC0415 - as above

    try:
        client.stop(container, timeout=grace_s)
    except NotFound:
        return
    except APIError:  # say, its shim is dead: the removal by force has more means, or says why not
        pass
    try:
        client.remove_container(container, v=True, force=True)
    except NotFound:
        return
    except APIError as error:
        if error.status_code != 409:  # somebody is removing it already
            raise


def await_removal(client: APIClient, container: str, deadline_s: int) -> None:
    """Wait until the daemon has removed the container."""
    from docker.errors import NotFound  # noqa: PLC0415 - as above

    with contextlib.suppress(NotFound):
        client.wait(container, timeout=deadline_s, condition="removed")


def remove_volumes(client: APIClient, hub: str, instance: str, handle: DockerHandle | None) -> None:
    """Remove the volumes that an interrupted removal left: the anonymous ones with the instance's
    mark, and those that the handle names.
    """
    from docker.errors import NotFound  # noqa: PLC0415 - as above

    listed = client.volumes(filters=labels.of_instance(hub, instance))["Volumes"] or []
    recorded = handle.volumes if handle is not None else ()
    marked = [each["Name"] for each in listed if is_anonymous(each["Name"])]
    for name in {*recorded, *marked}:
        with contextlib.suppress(NotFound):
            client.remove_volume(name)


def owned(client: APIClient, endpoint: Endpoint, hub: str) -> list[Owned]:
    """Every container with the hub's mark, and every volume with the mark whose container
    is gone.
    """
    copies = Copies(client)
    containers = client.containers(all=True, filters=labels.of_hub(hub))
    # A volume goes with the container it was made for, also if that was renamed.
    made = [each for each in containers if not copies.is_inherited(each)]
    present = {labels.mark_of(each["Labels"]).instance for each in made}
    listed = client.volumes(filters=labels.of_hub(hub))["Volumes"] or []
    left = [each for each in listed if labels.mark_of(each["Labels"]).instance not in present]
    return [
        *(_container(endpoint, each, copies.evidence(each)) for each in containers),
        *(_left_behind(endpoint, each) for each in left),
    ]


def _container(endpoint: Endpoint, listed: Mapping[str, Any], copy: str) -> Owned:
    name = listed["Names"][0].lstrip("/") if listed["Names"] else listed["Id"][:12]
    handle = status.handle(endpoint, {**listed, "Name": name})
    return _owned(listed, handle, name, copy)


def _left_behind(endpoint: Endpoint, volume: Mapping[str, Any]) -> Owned:
    name = volume["Name"]
    handle = DockerHandle(
        docker_host=endpoint.docker_host,
        tls=endpoint.tls,
        container="",
        name=name,
        volumes=(name,),
    )
    copy = "" if is_anonymous(name) else "the volumes that the hub makes have no names"
    return _owned(volume, handle, f"volume {name[:12]}", copy)


def _owned(listed: Mapping[str, Any], handle: DockerHandle, name: str, copy: str) -> Owned:
    mark = labels.mark_of(listed["Labels"])
    created_at = status.created_at(listed)
    return Owned(mark.instance, mark.epoch, handle.dump(), mark.worker, name, created_at, copy=copy)
