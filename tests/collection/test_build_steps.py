"""The steps of module build on a real hub with a real agent: every kind, and files both ways."""

import base64
import hashlib
import json
import os
from pathlib import Path

import pytest
from collection.test_modules import show, shown, task
from e2e.hub_process import HubProcess

from hostler_agent.jobs.posix import mounts

WORKER = {"requires": {"worker": "local-1"}}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A real hub with one worker, and how modules reach it."""
    with HubProcess.running(tmp_path_factory.mktemp("site") / "hub") as hub:
        yield {"hub_state_dir": str(hub.state_dir)}


@pytest.fixture
def run(site, play):
    def run(*tasks, verbose=None):
        define = task("worker", "defined", name="local-1", driver="local")
        return play([define, *tasks], *([verbose] if verbose else []), defaults=site)

    return run


def test_every_kind_of_step(run, tmp_path):
    source = tmp_path / "source.bin"
    source.write_bytes(os.urandom(3_000_000))
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    steps = [
        {"name": "source", "download": {"to": "in/source", "src": str(source)}},
        {"name": "text", "download": {"to": "in/tool", "content": "#!/bin/sh\n", "mode": "0755"}},
        {"name": "make", "mkdir": ["out/deep", "old"]},
        {"name": "hash", "command": "sha256sum in/source | cut -d ' ' -f 1"},
        {"name": "tool", "command": ["./tool"], "workdir": "in", "use_pty": True},
        {"name": "input", "command": "cat > out/deep/x.txt", "initial_stdin": "typed"},
        {
            "name": "log",
            "command": "echo told > told.log",
            "logfiles": {"told": {"filename": "told.log"}},
            "log_environment": True,
        },
        {"name": "copy", "copy": {"from": "out/deep", "to": "out/again"}},
        {"name": "stat", "stat": "in/source"},
        {"name": "list", "listdir": "out"},
        {"name": "glob", "glob": "out/**/*.txt"},
        {"name": "remove", "remove": "told.log"},
        {"name": "clear", "rmdir": ["old"]},
        {"name": "property", "set_property": {"name": "size", "command": "wc -c < in/source"}},
        {"name": "lines", "set_property": {"lines": True, "command": "echo A=b"}},
        {"name": "file", "upload": {"from": "in/source", "name": "a/source", "keep_stamp": True}},
        {"name": "tree", "upload_directory": {"from": "out", "compress": "gz"}},
        {"name": "some", "upload_glob": {"pattern": "out/**/*.txt", "name": "texts"}},
    ]
    dest = tmp_path / "made"
    told = show("[result.build.properties, result.build.steps[8].result, result.artifacts]")
    code, output = run(task("build", steps=steps, artifacts_dest=str(dest), **WORKER), told)
    assert code == 0, output
    ((properties, stat, artifacts),) = shown(output)
    assert properties == {"size": "3000000", "A": "b"}
    assert stat["stat"][6] == 3_000_000
    there = {
        str(path.relative_to(dest)): path.read_bytes() for path in dest.rglob("*") if path.is_file()
    }
    assert hashlib.sha256(there.pop("a/source")).hexdigest() == digest
    names = ["out/again/x.txt", "out/deep/x.txt", "texts/again/x.txt", "texts/deep/x.txt"]
    assert there == dict.fromkeys(names, b"typed")
    assert [item["path"] for item in artifacts] == ["a/source", *names]


def test_artifacts_that_are_there_are_left_alone_and_others_replaced(run, tmp_path):
    steps = [
        {"name": "make", "command": "echo one > one; echo two > two"},
        {"name": "keep", "upload_glob": {"pattern": "*"}},
    ]
    (tmp_path / "one").write_text("one\n")
    (tmp_path / "two").write_text("old\n")
    before = (tmp_path / "one").stat()
    code, output = run(task("build", steps=steps, artifacts_dest=str(tmp_path), **WORKER))
    assert code == 0, output
    assert (tmp_path / "two").read_text() == "two\n"
    after = (tmp_path / "one").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.skipif(
    not os.access(mounts.own_cgroups().get("memory", "/none"), os.W_OK),
    reason="needs the memory controller of cgroup version 1, and to be root",
)
def test_limits_of_the_build_and_of_its_steps(run):
    steps = [
        {"name": "within", "command": ["true"], "batch_files": True},
        {"name": "own", "command": ["true"], "limits": {"memory_mb": 128}},
    ]
    limits = {"memory_mb": 64, "processes": 50}
    build = task("build", steps=steps, limits=limits, log_tail_lines=20, **WORKER)
    code, output = run(build, show("[result.log_tail]"))
    assert code == 0, output
    ((log,),) = shown(output)
    assert any("(limits: memory 128 MiB, processes 50)" in line for line in log), log


def test_V14_secrets_are_references_and_no_value_is_shown_however_verbose(run, site):
    directory = Path(site["hub_state_dir"], "build-secrets")
    directory.mkdir(mode=0o700)
    for name, content in (("token", "sword-fish"), ("policy.toml", '[token]\nusers = ["admin"]')):
        (directory / name).write_text(content)
        (directory / name).chmod(0o600)
    script = 'test "$TOKEN" = sword"-fish" && cat "$KEY"'
    secrets = {"TOKEN": {"ref": "token"}, "KEY": {"ref": "token", "as": "file"}}
    step = {"name": "s", "command": script}
    wrong = {"TOKEN": {"value": "swordfish"}}
    tasks = [
        task("build", steps=[step], secrets=secrets, **WORKER),
        task("build", steps=[{**step, "secrets": secrets}], **WORKER),
        task("build", steps=[{**step, "secrets": wrong}], **WORKER),
        task("build", steps=[step], secrets={"TOKEN": "swordfish"}, **WORKER),
        task("build", steps=[{**step, "secrets": {"TOKEN": {"ref": "other"}}}], **WORKER),
    ]
    code, output = run(*[{**one, "ignore_errors": True} for one in tasks], verbose="-vvvv")
    assert code == 0, output
    assert output.count('"state": "success"') >= 2
    assert "steps[0].secrets.TOKEN must name a secret of the hub" in output
    assert "'other' may not be used by 'admin'" in output
    for value in ("sword-fish", "swordfish"):
        assert value not in output


WRONG = [
    ({"command": "x", "limits": {"memory_mb": 8}}, "/steps/0/limits/memory_mb"),
    ({"stat": "a", "batch_files": True}, "batch_files is for steps with a command"),
    ({}, "one of the following is required: command, mkdir"),
    ({"command": "x", "remove": "y"}, "mutually exclusive"),
    ({"download": {"to": "a"}}, "one of the following is required: content, src, file"),
    ({"download": {"to": "a", "src": "/no/such"}}, "src: /no/such cannot be read"),
    ({"download": {"to": "a", "file": "0" * 64}}, "no file 000"),
    ({"download": {"to": "a", "content": "", "mode": 493}}, "/steps/0/download/mode"),
    ({"stat": "../a"}, "must not climb out"),
    ({"stat": "a", "env": {"A": "b"}}, "env is for steps with a command"),
    ({"upload": {"from": "missing"}}, "Cannot open file"),
]


@pytest.fixture(scope="module")
def results():
    """What became of each task of WRONG, once a test has run them."""
    return []


@pytest.fixture
def told(results, run):
    """The results of WRONG: all in one play, since a play costs two seconds."""
    if not results:
        registers = [f"result_{index}" for index in range(len(WRONG))]
        tasks = [
            {
                **task("build", register, steps=[{"name": "s", **step}], **WORKER),
                "ignore_errors": True,
            }
            for register, (step, _text) in zip(registers, WRONG, strict=True)
        ]
        every = ", ".join(f"{one} | to_json | b64encode" for one in registers)
        code, output = run(*tasks, show(f"[{every}]"))
        assert code == 0, output
        results += [json.loads(base64.b64decode(each)) for each in shown(output)[0]]
    return results


@pytest.mark.parametrize("number", range(len(WRONG)), ids=[str(step) for step, _text in WRONG])
def test_what_is_wrong_is_told(told, number):
    assert told[number]["failed"]
    assert WRONG[number][1] in str(told[number])
