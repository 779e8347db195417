"""What may be said of a container, what only the hub's owner may allow, and the way to the hub."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from hostler_hub.drivers.contract import Environment, InstanceSpec
from hostler_hub.drivers.docker import DockerDriver, hub_route, payload, privileges
from hostler_hub.drivers.docker.options import DockerOptions
from hostler_hub.drivers.errors import OptionsRefused
from hostler_hub.drivers.registry import check_options
from hostler_hub.errors import SettingsError
from hostler_hub.runtime import docker_privileges as words

IMAGE = {"image": "debian:12"}
TLS = {name: {"file": f"{name}.pem"} for name in ("ca", "cert", "key")}
REMOTE = {**IMAGE, "docker_host": "tcp://docker.example.org:2376", "tls": TLS}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "give either image, or dockerfile and context"),
        ({**IMAGE, "dockerfile": "FROM x"}, "give either image, or dockerfile and context"),
        ({**IMAGE, "imgae": "x"}, "imgae.*it knows: image"),
        ({**IMAGE, "pull": "sometimes"}, "pull"),
        ({**IMAGE, "memory": "much"}, "memory"),
        ({**IMAGE, "docker_host": "ssh://there"}, "docker_host: unix:///PATH or tcp://HOST:PORT"),
        ({**IMAGE, "docker_host": "tcp://10.0.0.1:2375"}, "tls: .* open to whoever can reach it"),
        ({**IMAGE, "tls": TLS}, "tls: a unix:// socket has none"),
        ({**IMAGE, "hub_url": "http://hub"}, "hub_url: must be wss://NAME"),
        ({**IMAGE, "hub_url": "ws://172.17.0.1:8010"}, "hub_url: must be wss://NAME"),
        ({**IMAGE, "labels": {"io.hostler.hub": "mine"}}, "labels: io.hostler.* are the hub's own"),
        ({**IMAGE, "networks": ["a"], "network_mode": "none"}, "exclude each other"),
        ({"context": "../../etc"}, "context"),
        ({**IMAGE, "registry": {"username": "me", "password": "plain"}}, "password"),
    ],
)
def test_options_that_cannot_work_are_refused_with_their_name(
    options: dict[str, Any], told: str
) -> None:
    with pytest.raises(OptionsRefused, match=f"driver docker .*{told}"):
        check_options(DockerDriver, options)


@pytest.mark.parametrize(
    "options",
    [
        IMAGE,
        REMOTE,
        {**IMAGE, "docker_host": "tcp://127.0.0.1:2375"},
        {"dockerfile": "FROM debian:12"},
        {"context": "builder", "build_args": {"A": "1"}, "target": "base"},
    ],
)
def test_options_that_can(options: dict[str, Any]) -> None:
    check_options(DockerDriver, options)


ESCAPES = [
    ({"host_config": {"privileged": True}}, "privileged"),
    ({"host_config": {"pid_mode": "host"}}, "host-namespaces"),
    ({"host_config": {"ipc_mode": "host"}}, "host-namespaces"),
    ({"host_config": {"userns_mode": "host"}}, "host-namespaces"),
    ({"host_config": {"cap_add": ["SYS_ADMIN"]}}, "capabilities"),
    ({"host_config": {"devices": ["/dev/kmsg:/dev/kmsg"]}}, "devices"),
    ({"host_config": {"security_opt": ["seccomp=unconfined"]}}, "security-opt"),
    ({"network_mode": "host"}, "host-network"),
    ({"network_mode": "container:another"}, "host-network"),
    ({"networks": ["host"]}, "host-network"),
    ({"volumes": ["/:/host"]}, "bind=/"),
    ({"volumes": ["/var/run/docker.sock:/var/run/docker.sock"]}, "bind=/var/run/docker.sock"),
    ({"volumes": ["../../etc:/etc2"]}, "bind=../../etc"),
]


@pytest.mark.parametrize(("options", "need"), ESCAPES)
def test_what_leads_out_of_the_container_needs_the_hub_s_owner(
    options: dict[str, Any], need: str
) -> None:
    asked = DockerOptions.model_validate({**IMAGE, **options})
    with pytest.raises(OptionsRefused, match=f"HOSTLER_DOCKER_ALLOW={need}"):
        privileges.check(asked, frozenset(words.DOCKER) - {need})
    privileges.check(asked, frozenset({need}))


def test_a_path_below_one_that_is_allowed_is_another_path() -> None:
    """A link that a build planted there could lead anywhere."""
    asked = DockerOptions.model_validate({**IMAGE, "volumes": ["/srv/cache/link:/x"]})
    with pytest.raises(OptionsRefused, match="bind=/srv/cache/link"):
        privileges.check(asked, frozenset({"bind=/srv/cache"}))


def test_what_stays_inside_needs_nobody() -> None:
    harmless = {
        "host_config": {
            "shm_size": "1g",
            "security_opt": ["no-new-privileges"],
            "cap_drop": ["ALL"],
        },
        "volumes": ["ccache:/cache", "sources:/src:ro"],
        "networks": ["builds"],
    }
    privileges.check(DockerOptions.model_validate({**IMAGE, **harmless}), frozenset())


def test_an_unknown_part_of_host_config_is_refused() -> None:
    asked = DockerOptions.model_validate({**IMAGE, "host_config": {"binds": ["/:/host"]}})
    with pytest.raises(OptionsRefused, match=r"host_config\.binds is unknown"):
        privileges.check(asked, frozenset(words.DOCKER))


def test_the_owner_s_words_are_checked_at_the_start() -> None:
    assert words.parse(" privileged, bind=/srv/cache ,") == {"privileged", "bind=/srv/cache"}
    for wrong in ("privilege", "bind=", "bind=srv"):
        with pytest.raises(SettingsError, match="docker_allow"):
            words.parse(wrong)


@pytest.fixture
def hub(environment: Environment, tmp_path: Path) -> Environment:
    socket = tmp_path / "agents" / "hub.sock"
    socket.parent.mkdir()
    socket.touch()
    return dataclasses.replace(environment, hub_socket=socket)


def test_a_local_daemon_mounts_the_hub_s_socket(hub: Environment) -> None:
    way = hub_route.choose(DockerOptions.model_validate(IMAGE), hub)
    assert way.url == "ws://localhost/api/v1/agents/connect"
    assert (way.directory, way.socket) == (hub.hub_socket.parent, "/run/hostler/hub.sock")


def test_a_remote_daemon_needs_a_hub_with_a_name(hub: Environment) -> None:
    options = DockerOptions.model_validate(REMOTE)
    with pytest.raises(OptionsRefused, match=r"cannot reach this hub.*HOSTLER_PUBLIC_URL"):
        hub_route.choose(options, hub)
    public = dataclasses.replace(hub, connect_url="wss://hub.example.org/api/v1/agents/connect")
    assert hub_route.choose(options, public) == hub_route.HubRoute(public.connect_url)


@pytest.mark.parametrize("given", ["wss://other:8443", "wss://other:8443/api/v1/agents/connect"])
def test_another_way_to_the_hub_can_be_told(hub: Environment, given: str) -> None:
    options = DockerOptions.model_validate({**IMAGE, "hub_url": given})
    way = hub_route.choose(options, hub)
    assert way == hub_route.HubRoute("wss://other:8443/api/v1/agents/connect")


def test_who_builds_run_as_reaches_the_agent_s_configuration() -> None:
    chosen = {"run_as": "agent", "no_new_privileges": True}
    spec = InstanceSpec("w", "0" * 26, 1, "a-token-of-no-use", IMAGE, chosen)
    options = DockerOptions.of(IMAGE)
    route = hub_route.HubRoute("ws://localhost/", None, "/run/hostler/hub.sock")
    files = {each.name: each for each in payload.agent_files(spec, options, route, None)}
    config = json.loads(files[payload.CONFIG].content)
    assert {key: config[key] for key in chosen} == chosen
