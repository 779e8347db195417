"""Arguments and environment, without starting anything (E13)."""

from __future__ import annotations

import os

import pytest

from hostler_agent.jobs.errors import PlanRefused
from hostler_agent.jobs.plan import JobPlan, check, command_argv, job_environment
from hostler_agent.jobs.posix.mounts import own_cgroups

BASE = {"PATH": "/bin", "HOME": "/home/me", "PYTHONPATH": "/base"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, BASE),
        ({"HOME": None}, {"PATH": "/bin", "PYTHONPATH": "/base"}),
        ({"NONE": None}, BASE),
        ({"PATH": ["/a", "${PATH}"]}, {**BASE, "PATH": f"/a{os.pathsep}/bin"}),
        ({"PYTHONPATH": "/mine"}, {**BASE, "PYTHONPATH": f"/mine{os.pathsep}/base"}),
        ({"X": "${HOME}/${MISSING}/$HOME"}, {**BASE, "X": "/home/me//$HOME"}),
        ({"A": "1", "B": "${A}"}, {**BASE, "A": "1", "B": ""}),
        ({"HOSTLER_COMMAND": "forged"}, {**BASE, "HOSTLER_COMMAND": "c"}),
    ],
)
def test_the_rules_of_the_protocol(changes, expected):
    markers = {"HOSTLER_COMMAND": "c"} if "HOSTLER_COMMAND" in changes else {}
    assert job_environment(BASE, changes, markers) == expected


def test_a_string_is_for_the_shell_and_a_list_is_not():
    assert command_argv("a b") == ("/bin/sh", "-c", "a b")
    assert command_argv(["a b"]) == ("a b",)


def plan(*argv: str, **environment: str) -> JobPlan:
    return JobPlan("c", argv, "/", environment)


@pytest.mark.parametrize(
    ("refused", "text"),
    [
        (plan(), "the command is empty"),
        (plan(""), "the command is empty"),
        (plan("a", "b\0"), "argument 1 contains a NUL"),
        (plan("a", "x" * 131072), "argument 1 has 131073 bytes, at most 131072 fit"),
        (plan("a", "ü" * 65536), "argument 1 has 131073 bytes"),
        (plan("a", *(["x" * 131000] * 9)), "have 1179011 bytes together, at most 1048576 fit"),
        (plan("a", X="v\0"), "environment variable 'X' contains a NUL"),
        (plan("a", X="v" * 131070), "environment variable 'X' has 131073 bytes"),
        (plan("a", **{f"V{i}": "" for i in range(4097)}), "has 4097 variables, at most 4096 fit"),
        (plan("a", **{"A=B": "c"}), "'A=B' is no name"),
        (plan("a", **{"": "c"}), "'' is no name"),
        (JobPlan("c", ("a",), "/\0", {}), "workdir contains a NUL"),
    ],
)
def test_e13_what_no_exec_takes_is_named_with_its_size(refused, text):
    with pytest.raises(PlanRefused) as failure:
        check(refused)
    assert text in str(failure.value)


@pytest.mark.parametrize(
    "allowed",
    [
        plan("a", "x" * 131071),
        plan("a", X="v" * 131069),
        plan("a", **{f"V{i}": "" for i in range(4096)}),
        plan("a", "\udcff", X="\udcff"),
    ],
)
def test_e13_what_just_fits_is_allowed(allowed):
    check(allowed)


HYBRID = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
38 31 0:35 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
39 31 0:36 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct
41 31 0:38 / /sys/fs/cgroup/unified\\040tree rw,relatime - cgroup2 cgroup2 rw
"""


def test_cgroups_are_found_where_they_are_mounted():
    found = own_cgroups(HYBRID, "8:pids:/a\n4:cpu,cpuacct:/\n0::/system.slice/x:y.service\n")
    assert {name: str(path) for name, path in found.items()} == {
        "pids": "/sys/fs/cgroup/pids/a",
        "cpu": "/sys/fs/cgroup/cpu,cpuacct",
        "cpuacct": "/sys/fs/cgroup/cpu,cpuacct",
        "cgroup2": "/sys/fs/cgroup/unified tree/system.slice/x:y.service",
    }


@pytest.mark.parametrize(
    ("own", "expected"), [("/docker/1/sub", "/cg/sub"), ("/docker/1", "/cg"), ("/docker/12", None)]
)
def test_a_container_sees_its_own_part_of_the_tree(own, expected):
    found = own_cgroups("1 2 0:1 /docker/1 /cg rw - cgroup2 none rw\n", f"0::{own}\n")
    assert str(found.get("cgroup2")) == str(expected)


def test_a_machine_without_cgroups_has_none():
    assert own_cgroups("", "") == {}
