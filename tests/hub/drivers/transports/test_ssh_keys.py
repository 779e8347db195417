"""Private keys in the formats that ssh-keygen, openssl and people write."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization as to
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa, x25519

from hostler_hub.drivers.transports.ssh.keys import KeyRefused, load_private, parse_private

KEYS = {
    "rsa": rsa.generate_private_key(65537, 1024),
    "ecdsa": ec.generate_private_key(ec.SECP256R1()),
    "ecdsa-384": ec.generate_private_key(ec.SECP384R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate(),
}
FORMATS = {
    "PKCS#8": to.PrivateFormat.PKCS8,
    "PEM": to.PrivateFormat.TraditionalOpenSSL,
    "OpenSSH": to.PrivateFormat.OpenSSH,
}
PHRASE = "a phrase: ü"


def text_of(key: object, form: to.PrivateFormat, phrase: str | None = None) -> str:
    locked: to.KeySerializationEncryption = to.NoEncryption()
    if phrase is not None:
        locked = to.BestAvailableEncryption(phrase.encode())
        if form is to.PrivateFormat.OpenSSH:  # whose default takes its time
            locked = (
                to.PrivateFormat.OpenSSH.encryption_builder().kdf_rounds(1).build(phrase.encode())
            )
    return key.private_bytes(to.Encoding.PEM, form, locked).decode()  # type: ignore[attr-defined]


def public_of(key: object) -> bytes:
    line = key.public_key().public_bytes(to.Encoding.OpenSSH, to.PublicFormat.OpenSSH)  # type: ignore[attr-defined]
    return bytes(line)


CASES = [
    (kind, form)
    for kind in KEYS
    for form in FORMATS
    if (kind, form) != ("ed25519", "PEM")  # there is no such format
]


@pytest.mark.parametrize(("kind", "form"), CASES)
@pytest.mark.parametrize("phrase", [None, PHRASE])
def test_each_kind_in_each_format(kind: str, form: str, phrase: str | None) -> None:
    text = text_of(KEYS[kind], FORMATS[form], phrase)
    for variant in (text, text.replace("\n", "\r\n"), text.strip(), "\n" + text + "\n\n"):
        found = parse_private(variant, phrase)
        assert f"{found.get_name()} {found.get_base64()}".encode() == public_of(KEYS[kind])


@pytest.mark.parametrize(("kind", "form"), CASES)
def test_an_encrypted_key_says_which_option_is_missing_or_wrong(kind: str, form: str) -> None:
    text = text_of(KEYS[kind], FORMATS[form], PHRASE)
    with pytest.raises(KeyRefused, match="encrypted; give its 'passphrase'"):
        parse_private(text, None)
    with pytest.raises(KeyRefused, match="or the passphrase is wrong"):
        parse_private(text, "another")


@pytest.mark.parametrize(("kind", "form"), CASES)
def test_a_passphrase_for_a_key_without_one_does_no_harm(kind: str, form: str) -> None:
    assert parse_private(text_of(KEYS[kind], FORMATS[form]), PHRASE)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 somebody", "a public key; give the private one"),
        ("PuTTY-User-Key-File-3: ssh-ed25519\n", "a key of PuTTY; convert it"),
        ("-----BEGIN CERTIFICATE-----\n", "a certificate"),
        ("-----BEGIN PRIVATE KEY-----\nsecret\n-----END PRIVATE KEY-----\n", "no private key"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nsecret\n", "no private key"),
        (text_of(KEYS["ecdsa"], to.PrivateFormat.PKCS8)[:120], "no private key"),
        (text_of(dsa.generate_private_key(1024), to.PrivateFormat.TraditionalOpenSSL), "a DSA key"),
        (
            text_of(dsa.generate_private_key(1024), to.PrivateFormat.PKCS8),
            "a key of a kind .*: DSA",
        ),
        (text_of(x25519.X25519PrivateKey.generate(), to.PrivateFormat.PKCS8), ".*: X25519"),
        ("", "no private key"),
        ("secret", "no private key"),
        ("\0\ufffd" * 50, "no private key"),
    ],
)
def test_what_is_no_key_is_called_what_it_is(text: str, what: str) -> None:
    for phrase in (None, "a phrase"):
        with pytest.raises(KeyRefused, match=what) as caught:
            parse_private(text, phrase)
        assert "secret\n" not in str(caught.value)
        assert not text or text[40:60] not in str(caught.value) or len(text) < 60


def test_a_certificate_must_be_one_and_of_its_key(tmp_path: Path) -> None:
    for name in ("key", "ca"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name], check=True
        )
    key, certificate = tmp_path / "key", tmp_path / "key-cert.pub"
    subprocess.run(
        ["ssh-keygen", "-q", "-s", tmp_path / "ca", "-I", "x", tmp_path / "key.pub"], check=True
    )
    assert load_private(key, None, certificate).public_blob is not None
    for content in ("", "x", "ssh-ed25519-cert-v01@openssh.com AAAA", "ssh-rsa AAAA", "\0" * 100):
        certificate.write_text(content)
        with pytest.raises(KeyRefused, match=r"key-cert\.pub is no certificate of .*/key"):
            load_private(key, None, certificate)
    with pytest.raises(FileNotFoundError):
        load_private(key, None, tmp_path / "absent")
