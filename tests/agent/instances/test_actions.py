"""Instances on a machine: started once, known for sure, ended for sure; with real agents."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from peers import small_disk
from stopping import resume, stop

from hostler_agent.instances.directories import Directories
from hostler_agent.instances.errors import HostError

if TYPE_CHECKING:
    from conftest import Host

OTHER_HUB = "01K8Z9Q8Y3N6V4T2R0P9M7K5J9"
NewInstance = Callable[[], str]


def has_ended(process: psutil.Process) -> bool:
    """Who adopts it may be slow to bury it."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def await_end(pid: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):  # it is buried already
        psutil.wait_procs([psutil.Process(pid)], timeout=60)


def test_started_is_running_and_stopped_is_gone(host: Host, new_instance: NewInstance) -> None:
    instance = new_instance()
    started = host.start(instance)
    process = psutil.Process(started["process"]["pid"])
    seen = host.call("inspect", instance=instance)
    assert (seen["state"], seen["process"]) == ("running", started["process"])
    assert host.instances() == [instance]
    assert host.instances(hub=OTHER_HUB) == []
    assert host.stop(instance) == {"state": "gone", "left": None}
    assert has_ended(process)
    assert host.call("inspect", instance=instance)["state"] == "gone"
    assert host.instances() == []
    assert host.stop(instance)["state"] == "gone"


def test_V14_the_token_is_in_a_private_file_alone(host: Host, new_instance: NewInstance) -> None:
    instance = new_instance()
    host.environment = {"SECRET_OF_THE_LOGIN": "secret"}
    started = host.start(instance, token="a-token-of-no-use", environment={"EXTRA": "yes"})
    process = psutil.Process(started["process"]["pid"])
    given = process.environ()
    assert "a-token-of-no-use" not in " ".join([*process.cmdline(), *given.values()])
    assert (given["EXTRA"], given.get("SECRET_OF_THE_LOGIN")) == ("yes", None)
    stop(process.pid)  # or it makes, renames and removes files meanwhile
    files = [path for path in host.directory.rglob("*") if path.is_file()]
    holding = [path for path in files if b"a-token-of-no-use" in path.read_bytes()]
    assert [path.name for path in holding] == ["token"]
    assert stat.S_IMODE(holding[0].stat().st_mode) == 0o600
    assert stat.S_IMODE(host.directory.stat().st_mode) == 0o700
    resume(process.pid)
    host.stop(instance)


def test_P12_many_starts_at_once_start_one(host: Host, new_instance: NewInstance) -> None:
    instance = new_instance()
    with ThreadPoolExecutor(4) as threads:
        replies = list(threads.map(lambda _: host.start(instance), range(4)))
    assert len({reply["process"]["pid"] for reply in replies}) == 1
    host.stop(instance)


def test_K3_a_start_that_died_before_its_record_is_found_by_its_mark(
    host: Host, new_instance: NewInstance
) -> None:
    instance = new_instance()
    started = host.start(instance)
    (host.directory / "instances" / instance / "process.json").unlink()
    assert host.call("inspect", instance=instance)["process"] == started["process"]
    assert host.start(instance)["process"] == started["process"]
    host.stop(instance)
    assert host.instances() == []


def test_P11_a_start_that_arrives_after_the_end_does_nothing(
    host: Host, new_instance: NewInstance
) -> None:
    instance = new_instance()
    assert host.stop(instance)["state"] == "gone"
    assert host.start(instance)["error"]["kind"] == "gone"
    assert host.instances() == []


def test_G2_a_start_that_is_under_way_is_not_taken_for_gone(
    host: Host, new_instance: NewInstance
) -> None:
    """The lock's holder may be about to start it: nobody knows yet."""
    instance = new_instance()
    host.call("list")
    with (host.directory / "instances" / f"{instance}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert host.call("inspect", instance=instance)["state"] == "starting"
    assert host.call("inspect", instance=instance)["state"] == "gone"


def test_E6_a_record_of_another_process_means_nobody(host: Host, new_instance: NewInstance) -> None:
    instance = new_instance()
    started = host.start(instance)
    record = host.directory / "instances" / instance / "process.json"
    os.kill(started["process"]["pid"], signal.SIGKILL)
    await_end(started["process"]["pid"])
    strangers = {"pid": os.getpid(), "started": 1, "boot": started["process"]["boot"]}
    record.write_text(json.dumps(strangers))
    assert host.call("inspect", instance=instance)["state"] == "gone"
    assert host.stop(instance)["state"] == "gone"  # and we are still here to tell


def test_E10_after_a_restart_of_the_machine_nothing_runs(
    host: Host, new_instance: NewInstance
) -> None:
    instance = new_instance()
    directory = host.directory / "instances" / instance
    host.start(instance)
    host.stop(instance)
    directory.mkdir()
    me = psutil.Process()
    (directory / "process.json").write_text(
        json.dumps({"pid": me.pid, "started": 1, "boot": "another"})
    )
    assert host.call("inspect", instance=instance)["state"] == "gone"
    host.stop(instance)


def test_P7_what_an_agent_said_last_is_evidence(host: Host, new_instance: NewInstance) -> None:
    instance = new_instance()
    config = {"hub": "http://no-such-scheme", "name": "w-1", "instance": instance, "epoch": 1}
    started = host.start(instance, config=config)
    if "error" not in started:  # it may end before it is looked at, or just after
        await_end(started["process"]["pid"])
    seen = host.call("inspect", instance=instance)
    assert seen["state"] == "gone"
    assert "option 'hub' must be a ws:// or wss:// URL" in seen["words"]
    texts = host.call("evidence", instance=instance)["texts"]
    assert "wss://" in texts["agent log"]
    assert str(os.getpid()) in texts["processes"]
    assert host.instances() == [instance]  # what it has left is still ours to clear
    host.stop(instance)
    assert host.instances() == []


def test_what_a_killed_agent_s_jobs_left_is_swept(host: Host, new_instance: NewInstance) -> None:
    instance = new_instance()
    started = host.start(instance)
    os.kill(started["process"]["pid"], signal.SIGKILL)
    job = subprocess.Popen(
        [sys.executable, "-c", "import signal; print('Ready', flush=True); signal.pause()"],
        env={**os.environ, "HOSTLER_INSTANCE": instance},
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert job.stdout is not None
    assert job.stdout.readline() == b"Ready\n"
    assert host.stop(instance, containment="subreaper")["state"] == "gone"
    assert job.wait(60) == -signal.SIGKILL
    job.stdout.close()


def test_an_agent_that_does_not_hear_is_killed(host: Host, new_instance: NewInstance) -> None:
    instance = new_instance()
    process = psutil.Process(host.start(instance)["process"]["pid"])
    stop(process.pid)
    assert host.stop(instance, grace_s=0.2)["state"] == "gone"
    assert has_ended(process)


def test_E18_read_only_directories_of_a_build_go_as_well(
    host: Host, new_instance: NewInstance
) -> None:
    instance = new_instance()
    host.start(instance)
    stubborn = host.directory / "instances" / instance / "work" / "stubborn"
    stubborn.mkdir()
    (stubborn / "file").touch()
    stubborn.chmod(0o500)
    assert host.stop(instance) == {"state": "gone", "left": None}
    assert [path.name for path in (host.directory / "instances").iterdir()] == [f"{instance}.lock"]


@pytest.mark.peer("small-disk")
def test_V3_what_cannot_be_removed_is_not_gone_and_goes_later(
    host: Host, new_instance: NewInstance
) -> None:
    """And it holds up no other instance (V19)."""
    instance, other = new_instance(), new_instance()
    process = psutil.Process(host.start(instance)["process"]["pid"])
    stubborn = host.directory / "instances" / instance / "work" / "stubborn"
    with small_disk.pinned(stubborn, host.directory):
        for _ in range(2):
            error = host.stop(instance)["error"]
            assert error["kind"] == "left"
            assert "stubborn" in error["text"]
        assert has_ended(process)
        assert host.call("inspect", instance=instance)["state"] == "gone"  # the processes are
        assert host.start(instance)["error"]["kind"] == "gone"
        host.start(other)
        assert host.stop(other) == {"state": "gone", "left": None}
    assert host.stop(instance) == {"state": "gone", "left": None}
    left = [path.name for path in (host.directory / "instances").iterdir()]
    assert sorted(left) == sorted([f"{instance}.lock", f"{other}.lock"])


def test_V3_without_descriptors_it_is_not_gone_and_goes_later(
    host: Host, new_instance: NewInstance
) -> None:
    instance = new_instance()
    host.start(instance)
    directories = Directories(str(host.directory))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        with pytest.raises(HostError, match="Too many open files"):
            directories.remove(instance)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert host.stop(instance) == {"state": "gone", "left": None}
    assert [path.name for path in (host.directory / "instances").iterdir()] == [f"{instance}.lock"]


def test_what_nobody_orders_to_end_any_more_is_removed_once_an_hour(
    host: Host, new_instance: NewInstance
) -> None:
    host.start(old := new_instance())
    host.stop(old)
    left = host.directory / "instances" / f".left-{old}"
    left.mkdir()
    host.start(first := new_instance())
    host.stop(first)
    assert left.exists()
    os.utime(host.directory / ".swept-left", (0, 0))
    host.start(second := new_instance())
    host.stop(second)
    assert not left.exists()


def test_a_directory_that_others_may_write_is_refused(
    host: Host, new_instance: NewInstance
) -> None:
    host.directory.mkdir()
    host.directory.chmod(0o777)
    refused = host.start(new_instance())["error"]
    assert refused["kind"] == "not-permitted"
    assert str(host.directory) in refused["text"]
    host.directory.chmod(0o700)


@pytest.mark.parametrize(
    ("action", "request_", "reason"),
    [
        ("dance", {}, "there is no action 'dance'"),
        ("inspect", {"instance": "../../etc"}, "'instance' must be a ULID"),
        ("stop", {"hub": "x"}, "'hub' must be a ULID"),
        ("list", {"directory": ""}, "'directory' must be text"),
        ("start", {"epoch": -1}, "'epoch' must be a number"),
    ],
)
def test_requests_that_are_none_of_ours(
    host: Host, new_instance: NewInstance, action: str, request_: dict[str, object], reason: str
) -> None:
    refused = host.call(action, **{"instance": new_instance(), **request_})["error"]
    assert refused["kind"] == "request"
    assert reason in refused["text"]


def test_an_archive_of_another_digest_is_not_installed(
    host: Host, archive: Path, tmp_path: Path
) -> None:
    pushed = tmp_path / "pushed.pyz"
    pushed.write_bytes(archive.read_bytes())
    installed, host.agent = host.agent, pushed
    refused = host.call("install", sha256="0" * 64)["error"]
    host.agent = installed
    assert (refused["kind"], pushed.exists()) == ("request", False)
    assert list((host.directory / "agents").iterdir()) == []


def test_V2_a_copied_directory_is_listed_as_a_copy_and_stays(
    host: Host, new_instance: NewInstance
) -> None:
    """As a backup, or another user's copy of a home, has it."""
    instance = new_instance()
    started = host.start(instance)
    made = host.directory / "instances" / instance
    other = replace(host, directory=host.directory.with_name("copied"))
    shutil.copytree(host.directory, other.directory, symlinks=True, copy_function=shutil.copy2)
    for each in (other.directory, *other.directory.rglob("*")):
        each.chmod(0o700)
    (host.directory / "instances" / instance / "process.json").unlink()
    listed = {each["directory"]: each for each in other.call("list")["instances"]}
    assert listed[str(other.directory)].get("copy") is None  # the agent itself, wherever one looks
    host.stop(instance)
    assert not psutil.pid_exists(started["process"]["pid"]) or has_ended(
        psutil.Process(started["process"]["pid"])
    )
    (left,) = other.call("list")["instances"]
    assert (left["instance"], left["process"]) == (instance, None)
    assert left["copy"] == f"its directory is a copy of {made}"
    assert other.stop(instance) == {"state": "gone", "left": None}
    assert (other.directory / "instances" / instance / "mark.json").exists()


def test_V2_an_agent_that_somebody_runs_in_a_copied_directory_is_not_ended(
    host: Host, new_instance: NewInstance
) -> None:
    instance = new_instance()
    started = host.start(instance)
    argv = psutil.Process(started["process"]["pid"]).cmdline()
    copied = host.directory.with_name("mine")
    shutil.copytree(host.directory / "instances" / instance, copied)
    config = str(copied / "agent.json")
    mine = subprocess.Popen(
        [config if each.endswith("agent.json") else each for each in argv], cwd=copied
    )
    try:
        cmdline = Path(f"/proc/{mine.pid}/cmdline")
        while config.encode() not in cmdline.read_bytes():
            time.sleep(0.001)  # it is not yet what it will be
        copies = {
            each["process"]["pid"]: each.get("copy") for each in host.call("list")["instances"]
        }
        assert "its directory is a copy of " in str(copies[mine.pid])
        assert copies[started["process"]["pid"]] is None
        host.stop(instance)
        assert host.call("inspect", instance=instance)["state"] == "gone"
        assert mine.poll() is None
    finally:
        mine.kill()
        mine.wait(60)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"machine": "0123456789abcdef0123456789abcdef"}, "made on another machine"),
        ({"machine": ""}, ""),
        ({"number": 1}, "is a copy of "),
    ],
)
def test_a_directory_of_another_machine_s_disk_is_a_copy(
    host: Host, new_instance: NewInstance, change: dict[str, object], said: str
) -> None:
    instance = new_instance()
    started = host.start(instance)
    os.kill(started["process"]["pid"], signal.SIGKILL)
    await_end(started["process"]["pid"])
    path = host.directory / "instances" / instance / "mark.json"
    about = json.loads(path.read_text())
    if "original" not in about or not about["original"]["machine"]:
        pytest.skip("this machine has no id, or its files are on the network")
    about["original"].update(change)
    path.write_text(json.dumps(about))
    (listed,) = host.call("list")["instances"]
    assert said in listed.get("copy", "")
    assert ("copy" in listed) == bool(said)
    host.stop(instance)
    assert path.exists() == bool(said)


def test_a_directory_that_was_moved_is_no_copy_and_its_snapshot_is(
    host: Host, new_instance: NewInstance
) -> None:
    instance = new_instance()
    started = host.start(instance)
    os.kill(started["process"]["pid"], signal.SIGKILL)
    await_end(started["process"]["pid"])
    moved = replace(host, directory=host.directory.with_name("moved"))
    host.directory.rename(moved.directory)
    (listed,) = moved.call("list")["instances"]
    assert "copy" not in listed
    # A snapshot has the same numbers; so has, to those who look, the very directory's other name.
    host.directory.symlink_to(moved.directory)
    (listed,) = moved.call("list")["instances"]
    assert "is a snapshot of" in listed["copy"]
    host.directory.unlink()
    moved.stop(instance)
    assert moved.instances() == []


def test_a_driver_lists_only_its_own_and_those_of_earlier_hubs(
    host: Host, new_instance: NewInstance
) -> None:
    ssh, local, earlier = (new_instance() for _ in range(3))
    host.start(ssh, driver="ssh")
    host.start(local, driver="local")
    host.start(earlier)
    assert set(host.instances(driver="local")) == {local, earlier}
    for each in (ssh, local):
        (host.directory / "instances" / each / "process.json").unlink()
        assert host.call("inspect", instance=each)["state"] == "running"
    for each in (ssh, local, earlier):
        host.stop(each)
    assert host.instances() == []
