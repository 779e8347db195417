"""What is stored of tokens and passwords, and what it is compared with."""

from __future__ import annotations

import pytest

from hostler_hub.runtime import passwords
from hostler_hub.runtime.passwords import (
    NO_SECRET,
    VerifiedPasswords,
    hash_of,
    hash_password,
    verify_password,
)


def test_a_password_is_verified_against_its_own_hash_alone() -> None:
    stored = hash_password("swordfish")
    assert verify_password("swordfish", stored)
    assert not verify_password("Swordfish", stored)
    assert not verify_password("", stored)
    assert "swordfish" not in stored


def test_equal_passwords_are_stored_differently() -> None:
    assert hash_password("swordfish") != hash_password("swordfish")


@pytest.mark.parametrize("password", ["", "swordfish", "0", NO_SECRET])
def test_where_nothing_is_stored_no_password_is_right(password: str) -> None:
    assert not verify_password(password, None)


def test_whatever_is_sent_for_a_token_has_a_hash() -> None:
    sent = ["", "hst_1", "hst_2", "\udcff", "ü", "\x00", "x" * 100_000]
    hashes = {hash_of(each) for each in sent}
    assert len(hashes) == len(sent)
    assert {len(each) for each in hashes} == {len(NO_SECRET)}
    assert NO_SECRET not in hashes


def test_a_verified_password_is_known_again_until_it_is_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    verified = VerifiedPasswords()
    verified.note("w", "stored", "swordfish")
    assert verified.knows("w", "stored", "swordfish")
    assert not verified.knows("w", "stored", "Swordfish")
    assert not verified.knows("w", "another hash", "swordfish")
    assert not verified.knows("x", "stored", "swordfish")
    assert "swordfish" not in str(vars(verified))
    monkeypatch.setattr(passwords, "_KNOWN", 1)
    verified.note("x", "stored", "swordfish")
    assert not verified.knows("w", "stored", "swordfish")
