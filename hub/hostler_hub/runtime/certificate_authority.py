"""A certificate authority of the hub's own, and the server certificate that it signs."""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from hostler_hub.runtime import private_files

AUTHORITY_DAYS = 3650
CERTIFICATE_DAYS = 397  # what browsers accept


def make(directory: Path, names: Sequence[str]) -> None:
    """Write ca.pem, hub.pem and hub.key: a certificate for these names and addresses.

    An authority that is there already (ca.pem, ca.key) is used again, so that clients which trust
    it need not learn a new one.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    authority, authority_key = _authority(directory)
    key = _key()
    builder = _builder(names[0], authority.subject, key, CERTIFICATE_DAYS, is_authority=False)
    signed = _with_names(builder, names, authority).sign(authority_key, _sha256())
    private_files.write(directory / "hub.key", _key_pem(key))
    private_files.write(directory / "hub.pem", _pem(signed) + _pem(authority), 0o644)


def _authority(directory: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    certificate_file, key_file = directory / "ca.pem", directory / "ca.key"
    if certificate_file.exists() and key_file.exists():
        known = load_pem_private_key(key_file.read_bytes(), None)
        assert isinstance(known, ec.EllipticCurvePrivateKey)
        return x509.load_pem_x509_certificate(certificate_file.read_bytes()), known
    key = _key()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Hostler hub authority")])
    builder = _builder("Hostler hub authority", name, key, AUTHORITY_DAYS, is_authority=True)
    certificate = builder.sign(key, _sha256())
    private_files.write(key_file, _key_pem(key))
    private_files.write(certificate_file, _pem(certificate), 0o644)
    return certificate, key


def _builder(
    subject: str,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    days: int,
    *,
    is_authority: bool,
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    # Yesterday: a machine that has just started may have a clock that is behind.
    begins = now - dt.timedelta(days=1)
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, subject[:64])]))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.BasicConstraints(is_authority, 0 if is_authority else None), True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _with_names(
    builder: x509.CertificateBuilder, names: Sequence[str], authority: x509.Certificate
) -> x509.CertificateBuilder:
    entries = [_general_name(name) for name in names]
    known = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    # Strict verifiers (Python 3.13's default) want to be told which key signed.
    signer = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(known)
    server = x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH])
    for extension in (x509.SubjectAlternativeName(entries), signer, server):
        builder = builder.add_extension(extension, critical=False)
    return builder


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _sha256() -> hashes.SHA256:
    return hashes.SHA256()


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        Encoding.PEM,
        PrivateFormat.PKCS8,
        NoEncryption(),
    )
