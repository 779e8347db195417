"""What a worker's starts share with others, and on what terms an open breaker lets it start."""

from __future__ import annotations

import pytest

from hostler_hub.drivers.contract import DriverOptions
from hostler_hub.drivers.docker.options import DockerOptions
from hostler_hub.drivers.ec2.options import Ec2Options
from hostler_hub.drivers.local.options import LocalOptions
from hostler_hub.drivers.ssh.options import SshOptions
from hostler_hub.drivers.winrm.options import WinrmOptions
from hostler_hub.scheduling.breaker import Breaker, Lane
from hostler_hub.scheduling.failure_domains import Link, links
from hostler_hub.scheduling.pool_key import PoolKey

DRIVER = PoolKey("ssh", is_group=False)
GROUP = PoolKey("g")


def test_without_domains_the_pool_counts_its_workers() -> None:
    assert links("w", DRIVER, ()) == (Link("driver ssh", "w", alike=True),)


def test_the_narrowest_domain_counts_workers_and_wider_ones_count_it() -> None:
    image, daemon = "image i on daemon d", "daemon d"
    assert links("w", DRIVER, (image, daemon)) == (
        Link(image, "w", alike=True),
        Link(daemon, image, alike=False),
        Link("driver ssh", image, alike=False),
    )


def test_a_group_s_workers_at_a_place_are_counted_by_themselves() -> None:
    """Its settings may be what fails."""
    site = "host h:22 in group g"
    assert links("w", GROUP, ("host h:22",)) == (
        Link(site, "w", alike=True),
        Link("host h:22", site, alike=False),
        Link("g", site, alike=False),
    )


@pytest.mark.parametrize(
    ("link", "proven", "lane"),
    [
        (Link("d", "w", alike=True), True, Lane.PROBE),
        (Link("d", "bad", alike=False), True, Lane.PROBE),
        (Link("d", "good", alike=False), True, Lane.PROVEN),
        (Link("d", "good", alike=False), False, Lane.UNTRIED),
    ],
    ids=["alike", "it failed", "its last start succeeded", "nothing is known"],
)
def test_lanes(link: Link, proven: bool, lane: Lane) -> None:
    assert link.lane(Breaker(failed_members=frozenset({"bad"})), proven) is lane


REGION = "region eu-west-1"
EC2 = {"region": "eu-west-1", "ami": "ami-1", "instance_types": ["m5.large", "m5.xlarge"]}

WINRM = {"host": "win1", "user": "ci", "password": {"file": "p"}}


@pytest.mark.parametrize(
    ("model", "options", "domains"),
    [
        (LocalOptions, {}, ()),
        (SshOptions, {"host": "b1"}, ("host b1:22",)),
        (SshOptions, {"host": "b1", "port": 2222, "user": "ci"}, ("host b1:2222",)),
        (
            SshOptions,
            {"host": "b1", "jump": [{"host": "gate"}]},
            ("host b1:22", "jump host gate"),
        ),
        (
            DockerOptions,
            {"image": "debian:12", "docker_host": "unix:///d.sock"},
            ("image debian:12 on daemon unix:///d.sock", "daemon unix:///d.sock"),
        ),
        (
            Ec2Options,
            EC2,
            (
                f"image ami-1 on instance type m5.large or m5.xlarge in {REGION}",
                f"instance type m5.large or m5.xlarge in {REGION}",
                f"image ami-1 in {REGION}",
                REGION,
            ),
        ),
        (WinrmOptions, WINRM, ("host win1:5986",)),
    ],
    ids=["local", "ssh", "ssh port", "ssh jump", "docker", "ec2", "winrm"],
)
def test_what_each_driver_s_starts_share(
    model: type[DriverOptions], options: dict[str, object], domains: tuple[str, ...]
) -> None:
    assert tuple(model.of(options).failure_domains) == domains


def test_images_that_are_built_of_the_same_text_are_the_same() -> None:
    first, same, other = (
        DockerOptions.of({"dockerfile": text}).failure_domains[0]
        for text in ("FROM a", "FROM a", "FROM b")
    )
    assert first == same != other
