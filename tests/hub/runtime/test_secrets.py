"""Secrets by reference."""

import pytest
from pydantic import ValidationError

from hostler_hub.runtime.errors import SecretRefused
from hostler_hub.runtime.secrets import SIZE_BYTES, SecretRef, Secrets


def test_a_variable_and_a_file_lead_to_their_secret(tmp_path):
    (tmp_path / "build-host").write_text("swordfish\n")
    secrets = Secrets(tmp_path, {"HOSTLER_SECRET_A": "open sesame"})
    assert secrets.resolve(SecretRef(file="build-host")) == "swordfish"
    assert secrets.resolve(SecretRef(env="HOSTLER_SECRET_A")) == "open sesame"
    assert "sesame" not in repr(secrets)


@pytest.mark.parametrize(
    "ref",
    [
        {},
        {"env": "HOSTLER_SECRET_A", "file": "a"},
        {"env": "PATH"},
        {"env": "HOSTLER_SECRET_"},
        {"file": "../hub.sqlite3"},
        {"file": "/etc/shadow"},
        {"file": ".."},
        {"file": ".hidden"},
        {"file": "a\n"},
        {"value": "plain"},
    ],
)
def test_nothing_else_of_the_machine_can_be_named(ref):
    with pytest.raises(ValidationError):
        SecretRef.model_validate(ref)


def test_a_reference_to_nothing_is_refused_by_its_name(tmp_path):
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "large").write_text("x" * (SIZE_BYTES + 1))
    (tmp_path / "elsewhere").symlink_to("/etc/hostname")
    secrets = Secrets(tmp_path, {})
    for name in ("none", "empty", "large", "elsewhere"):
        with pytest.raises(SecretRefused, match=name):
            secrets.resolve(SecretRef(file=name))
    with pytest.raises(SecretRefused, match="HOSTLER_SECRET_B"):
        secrets.resolve(SecretRef(env="HOSTLER_SECRET_B"))
    with pytest.raises(SecretRefused, match="no directory"):
        Secrets().resolve(SecretRef(file="any"))
