"""Who may use a build's secret, and what it is when a step starts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from hostler_agent.wire.extension import AgentReport, CommandReport, CommandSecret
from hostler_hub.builds.errors import SecretForbidden
from hostler_hub.builds.secrets import POLICY, BuildSecrets, Use
from hostler_hub.errors import Forbidden, InvalidRequest, SettingsError
from hostler_hub.runtime.errors import SecretRefused
from hostler_hub.runtime.secrets import SIZE_BYTES
from hostler_hub.runtime.settings import Settings
from hostler_hub.specs.build import BuildSpec
from hostler_hub.specs.secret_ref import BuildSecret

KEY = BuildSecret(ref="key")
AS_FILE = BuildSecret.model_validate({"ref": "key", "as": "file"})
REPORT = AgentReport(None, "process", facts={"isolation": "user"})
CI = Use("ci", "w")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    directory = tmp_path / "build-secrets"
    directory.mkdir(0o700)
    put(directory, "key", b"swordfish\n")
    put(directory, POLICY, b'[key]\nusers = ["ci"]\n')
    return directory


def put(directory: Path, name: str, content: bytes, mode: int = 0o600) -> None:
    (directory / name).write_bytes(content)
    (directory / name).chmod(mode)


def spec(**fields: Any) -> BuildSpec:
    return BuildSpec.model_validate({"steps": [{"name": "s", "command": "true"}], **fields})


async def values(directory: Path, secret: BuildSecret = KEY, use: Use = CI) -> bytes | None:
    (found,) = await BuildSecrets(directory).for_command({"TOKEN": secret}, use, REPORT, "c")
    return found.value


async def test_a_value_is_read_anew_for_each_command(directory: Path) -> None:
    assert await values(directory) == b"swordfish"
    put(directory, "key", b"marlin\r\n")
    assert await values(directory) == b"marlin"


async def test_a_file_is_given_as_it_is(directory: Path) -> None:
    put(directory, "key", b"\xff\x00key\n")
    assert await values(directory, AS_FILE) == b"\xff\x00key\n"
    with pytest.raises(SecretRefused, match="as a file"):
        await values(directory)


async def test_nobody_may_use_what_no_policy_grants(directory: Path) -> None:
    for policy in (b"", b"[key]\n", b'[other]\nusers = ["ci"]\n', b'[key]\nusers = ["cid"]\n'):
        put(directory, POLICY, policy)
        with pytest.raises(SecretForbidden, match=r"'key' may not be used by 'ci'.*policy\.toml"):
            await values(directory)
    (directory / POLICY).unlink()
    with pytest.raises(SecretForbidden):
        await values(directory)
    with pytest.raises(SecretForbidden):
        await values(directory / "none")


async def test_whether_a_secret_is_there_is_not_told_to_others(directory: Path) -> None:
    told = []
    for ref in ("key", "nil"):
        with pytest.raises(SecretForbidden) as refusal:
            await values(directory, BuildSecret(ref=ref), Use("eve", "w"))
        told.append(str(refusal.value).replace(ref, "REF"))
    assert told[0] == told[1]


async def test_a_secret_may_be_for_some_workers_and_kinds_of_isolation_only(
    directory: Path,
) -> None:
    put(directory, POLICY, b'[key]\nusers = ["ci"]\nworkers = ["w"]\nisolation = ["user"]\n')
    assert await values(directory) == b"swordfish"
    with pytest.raises(SecretForbidden, match="on worker 'x'"):
        await values(directory, use=Use("ci", "x"))
    for facts in ({}, {"isolation": "none"}):
        report = AgentReport(None, "process", facts=facts)
        with pytest.raises(SecretForbidden, match="with isolation 'none'"):
            await BuildSecrets(directory).for_command({"T": KEY}, CI, report, "c")


async def test_the_policy_itself_is_no_secret(directory: Path) -> None:
    put(directory, POLICY, b'["policy.toml"]\nusers = ["ci"]\n')
    with pytest.raises(SecretForbidden):
        await values(directory, BuildSecret(ref=POLICY))


@pytest.mark.parametrize(
    ("policy", "why"),
    [
        (b"[key", "policy.toml"),
        (b'[key]\nuser = ["ci"]\n', "key.user"),
        (b'key = "ci"\n', "key"),
        (b'[key]\nusers = "ci"\n', "key.users"),
        (b'[key]\nusers = ["ci"]\nisolation = ["users"]\n', "key.isolation"),
        (b"\xff", "policy.toml"),
    ],
)
async def test_a_policy_that_cannot_be_read_grants_nothing(
    directory: Path, policy: bytes, why: str
) -> None:
    put(directory, POLICY, policy)
    with pytest.raises(SecretRefused, match=why):
        await values(directory)


async def test_what_others_may_read_or_change_is_not_used(directory: Path) -> None:
    for name, mode in (("key", 0o604), (POLICY, 0o620), (POLICY, 0o602)):
        (directory / name).chmod(mode)
        with pytest.raises(SecretRefused, match=f"{name}.*chmod"):
            await values(directory)
        (directory / name).chmod(0o600)
    directory.chmod(0o770)
    with pytest.raises(SecretRefused, match="chmod"):
        await values(directory)


async def test_no_reference_leaves_the_directory(directory: Path, tmp_path: Path) -> None:
    put(tmp_path, "outside", b"the drivers' own")
    (directory / "key").unlink()
    (directory / "key").symlink_to(tmp_path / "outside")
    with pytest.raises(SecretRefused, match="key"):
        await values(directory)
    (directory / "key").unlink()
    os.mkfifo(directory / "key")
    with pytest.raises(SecretRefused, match="no regular file"):
        await values(directory)
    for ref in ("../outside", "/etc/passwd", "..", ".hidden", "a/b", ""):
        with pytest.raises(ValueError, match="ref"):
            BuildSecret(ref=ref)


async def test_what_cannot_be_masked_or_is_too_large_is_refused(directory: Path) -> None:
    put(directory, "key", b"abc\n")
    with pytest.raises(SecretRefused, match="fewer than 4"):
        await values(directory)
    put(directory, "key", b"x" * (SIZE_BYTES + 1))
    with pytest.raises(SecretRefused, match=str(SIZE_BYTES)):
        await values(directory)


async def test_a_submission_is_refused_with_a_pointer_to_the_secret(directory: Path) -> None:
    secrets = BuildSecrets(directory)
    step = {"name": "s", "command": "true", "secrets": {"TOKEN": {"ref": "key"}}}
    await secrets.check(spec(steps=[step]), "ci")
    await secrets.check(spec(), "eve")
    with pytest.raises(Forbidden, match="'eve'") as refusal:
        await secrets.check(spec(steps=[step]), "eve")
    assert refusal.value.pointer == "/steps/0/secrets/TOKEN"
    (directory / "key").unlink()
    with pytest.raises(InvalidRequest, match="key") as invalid:
        await secrets.check(spec(secrets=step["secrets"]), "ci")
    assert invalid.value.pointer == "/secrets/TOKEN"


async def test_a_worker_that_may_not_have_it_is_refused_at_submission(directory: Path) -> None:
    put(directory, POLICY, b'[key]\nusers = ["ci"]\nworkers = ["w"]\n')
    secrets = BuildSecrets(directory)
    wanted = {"secrets": {"TOKEN": {"ref": "key"}}}
    await secrets.check(spec(**wanted), "ci")
    await secrets.check(spec(requires={"worker": "w"}, **wanted), "ci")
    with pytest.raises(Forbidden, match="on worker 'x'"):
        await secrets.check(spec(requires={"worker": "x"}, **wanted), "ci")


async def test_agents_that_would_not_keep_it_get_none(directory: Path) -> None:
    secrets = BuildSecrets(directory)
    with pytest.raises(SecretRefused, match="stock Buildbot worker"):
        await secrets.for_command({"TOKEN": KEY}, CI, None, "c")
    old = AgentReport(None, "process", version=1)
    with pytest.raises(SecretRefused, match="too old"):
        await secrets.for_command({"TOKEN": KEY}, CI, old, "c")


async def test_a_command_that_runs_already_is_sent_no_value_again(directory: Path) -> None:
    """A right that is withdrawn meanwhile does not end it, either."""
    (directory / POLICY).unlink()
    report = AgentReport(None, "process", (CommandReport("c", "running"),))
    found = await BuildSecrets(directory).for_command({"TOKEN": KEY}, CI, report, "c")
    assert found == (CommandSecret("TOKEN", None),)


# --- settings -------------------------------------------------------------------------------------


def test_the_two_directories_of_secrets_are_kept_apart(tmp_path: Path) -> None:
    (tmp_path / "linked").symlink_to(tmp_path / "secrets")
    Settings(tmp_path, build_secrets_dir=str(tmp_path / "other"))
    for name in ("secrets", "secrets/builds", "linked", "linked/builds", "../x/..", "."):
        with pytest.raises(SettingsError, match="build_secrets_dir"):
            Settings(tmp_path, build_secrets_dir=str(tmp_path / name))
    with pytest.raises(SettingsError, match="build_secrets_dir"):
        Settings(tmp_path, secrets_dir=str(tmp_path / "build-secrets/drivers"))
    with pytest.raises(SettingsError, match="state directory"):
        Settings(
            tmp_path / "state", secrets_dir="/elsewhere", build_secrets_dir=str(tmp_path / "state")
        )


# --- the specification ----------------------------------------------------------------------------


def test_a_build_without_secrets_is_stored_as_before() -> None:
    """So that its digest, by which an idempotency key knows it, is the same."""
    stored = spec().model_dump(mode="json")
    assert "secrets" not in stored
    assert "secrets" not in stored["steps"][0]
    secret = {"TOKEN": {"ref": "key", "as": "file"}}
    stored = spec(secrets=secret).model_dump(mode="json")
    assert stored["secrets"] == secret
    assert BuildSpec.model_validate(stored).model_dump(mode="json") == stored


def test_a_step_s_secrets_win_over_the_build_s_and_only_commands_have_any() -> None:
    steps = [
        {"name": "s", "command": "true", "secrets": {"A": {"ref": "step"}}},
        {"name": "d", "mkdir": ["a"]},
    ]
    made = spec(steps=steps, secrets={"A": {"ref": "build"}, "B": {"ref": "build"}})
    assert {name: each.ref for name, each in made.secrets_of(0).items()} == {
        "A": "step",
        "B": "build",
    }
    assert made.secrets_of(1) == {}


@pytest.mark.parametrize(
    "fields",
    [
        {"secrets": {"A=B": {"ref": "key"}}},
        {"secrets": {"1A": {"ref": "key"}}},
        {"secrets": {"HOSTLER_COMMAND": {"ref": "key"}}},
        {"secrets": {"pwd": {"ref": "key"}}},
        {"secrets": {"A": {"ref": "key", "as": "argument"}}},
        {"secrets": {"A": {"value": "swordfish"}}},
        {"secrets": {"A": "key"}},
        {"secrets": {f"A{n}": {"ref": "key"} for n in range(65)}},
        {"secrets": {"A": {"ref": "key"}}, "env": {"A": "x"}},
        {"steps": [{"name": "s", "mkdir": ["a"], "secrets": {"A": {"ref": "key"}}}]},
    ],
)
def test_a_wrong_reference_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        spec(**fields)
