"""The known host keys of machines: files in OpenSSH's format, one kept by the hub and edited by
people, the others OpenSSH's own.

A line that cannot be read is passed over, as OpenSSH does it: it may be about another machine.
sshd(8), SSH_KNOWN_HOSTS FILE FORMAT.
"""

from __future__ import annotations

import binascii
import hmac
import os
import re
import threading
from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha1, sha256
from pathlib import Path

import paramiko
import structlog

from hostler_hub.runtime import private_files

SSH_PORT = 22
_REVOKED, _AUTHORITY = "@revoked", "@cert-authority"
_KEY_TYPE = re.compile(r"[a-z0-9@.-]{4,64}")
_NOTED = 1000  # lines that are remembered as logged

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Line:
    """A readable line: a marker or "", the patterns of names, and the key's type and bytes."""

    marker: str
    patterns: tuple[str, ...]
    kind: str
    blob: bytes

    def is_about(self, name: str) -> bool:
        """Whether the line's patterns match the name."""
        found = False
        for each in self.patterns:
            negated = each.startswith("!")
            if _matches(each.removeprefix("!"), name):
                if negated:
                    return False
                found = True
        return found


@dataclass(frozen=True, slots=True)
class Known:
    """What the files say of one machine. `keys` are its keys as bytes, `kinds` their types in the
    files' order. `has_authority` tells that certificates of some authority would be accepted for
    it.
    """

    keys: frozenset[bytes] = frozenset()
    kinds: tuple[str, ...] = ()
    revoked: frozenset[bytes] = frozenset()
    has_authority: bool = False


class KnownHosts:
    """A known_hosts file, which need not exist yet. Thread-safe."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._noted: set[tuple[Path, bytes]] = set()

    def of(self, names: Sequence[str], others: Sequence[Path] = ()) -> Known:
        """What this file and the `others` say of the machine that has the first name.

        The keys of a later name count where there are none of an earlier.
        """
        with self._lock:
            lines = [line for path in (self.path, *others) for line in self._read(path)]
        found = [_known(name, lines) for name in names]
        keyed = next((each for each in found if each.keys), Known())
        return Known(
            keyed.keys,
            keyed.kinds,
            frozenset().union(*(each.revoked for each in found)),
            any(each.has_authority for each in found),
        )

    def add(self, name: str, key: paramiko.PKey) -> bool:
        """Add the key of a new machine. Returns whether the machine is known by this key now.

        Returns False if the machine is known by other keys.
        """
        with self._lock:
            known = _known(name, list(self._read(self.path)))
            if known.keys:
                return key.asbytes() in known.keys
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = private_files.open_or_create(self.path, os.O_RDWR | os.O_APPEND)
            with open(descriptor, "rb+", buffering=0) as file:
                ended = not file.seek(0, os.SEEK_END) or _last_byte(file.fileno()) == b"\n"
                line = f"{name} {key.get_name()} {key.get_base64()}\n"
                file.write((line if ended else "\n" + line).encode("ascii"))
                os.fsync(file.fileno())
            return True

    def _read(self, path: Path) -> Iterator[_Line]:
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            self._note(path, b"", str(error.strerror))
            return
        for number, raw in enumerate(content.split(b"\n"), 1):
            # Names and keys are ASCII; whatever a comment is written in, no byte is an error.
            text = raw.decode("latin-1").strip(" \t\r")
            if not text or text.startswith("#"):
                continue
            try:
                yield _parse_line(text)
            except ValueError as error:
                self._note(path, raw, str(error), number)

    def _note(self, path: Path, raw: bytes, why: str, number: int | None = None) -> None:
        """Log what is passed over, once."""
        which = (path, sha256(raw).digest())
        if which not in self._noted and len(self._noted) < _NOTED:
            self._noted.add(which)
            _log.warning("known_hosts: passed over", file=str(path), line=number, why=why)


def name_of(host: str, port: int) -> str:
    """The name of a machine in a known_hosts file."""
    return host if port == SSH_PORT else f"[{host}]:{port}"


def fingerprint(key: paramiko.PKey | bytes) -> str:
    """The key's type and SHA-256 fingerprint, in the format of `ssh-keygen -l`."""
    blob = key if isinstance(key, bytes) else key.asbytes()
    digest = b64encode(sha256(blob).digest()).decode().rstrip("=")
    return f"{_kind_of(blob)} SHA256:{digest}"


def parse(line: str) -> paramiko.PKey:
    """Parse the key in a line of a .pub file. Raises ValueError."""
    kind, _, encoded = line.partition(" ")
    try:
        blob = _blob(kind, encoded)
        return paramiko.PKey.from_type_string(kind, blob)
    # paramiko lets through what any of its parts raises.
    except Exception as error:  # noqa: BLE001
        raise ValueError(f"it is no public key: {error}") from None


def _parse_line(text: str) -> _Line:
    """Parse a line of a known_hosts file. Raises ValueError."""
    words = text.split()
    marker = words.pop(0) if words[0].startswith("@") else ""
    if marker not in ("", _REVOKED, _AUTHORITY):
        raise ValueError(f"unknown marker {marker[:40]}")
    if len(words) < 3:
        raise ValueError("it has no key")
    names, kind, encoded = words[:3]
    blob = _blob(kind, encoded)
    return _Line(marker, tuple(filter(None, names.split(","))), kind, blob)


def _blob(kind: str, encoded: str) -> bytes:
    """Decode a public key. Raises ValueError."""
    try:
        blob = b64decode(encoded, validate=True)
    except binascii.Error as error:
        raise ValueError(f"its key is no base64: {error}") from None
    # string, then fields of the type's own, each with its length: RFC 4253 section 6.6.
    if not _KEY_TYPE.fullmatch(kind) or _kind_of(blob) != kind or not _is_whole(blob):
        raise ValueError("its key is cut short, or of another type")
    return blob


def _is_whole(blob: bytes) -> bool:
    """Whether the key's fields end where the key ends."""
    at = fields = 0
    while at + 4 <= len(blob):
        at += 4 + int.from_bytes(blob[at : at + 4], "big")
        fields += 1
    return at == len(blob) and fields > 1


def _kind_of(blob: bytes) -> str:
    length = int.from_bytes(blob[:4], "big")
    return blob[4 : 4 + min(length, 64)].decode("latin-1")


def _known(name: str, lines: Sequence[_Line]) -> Known:
    about = [line for line in lines if line.is_about(name)]
    own = [line for line in about if not line.marker]
    return Known(
        frozenset(line.blob for line in own),
        tuple(dict.fromkeys(line.kind for line in own)),
        frozenset(line.blob for line in about if line.marker == _REVOKED),
        any(line.marker == _AUTHORITY for line in about),
    )


def _matches(pattern: str, name: str) -> bool:
    """Whether a pattern, or a hashed name, is the name's. Only * and ? are special (ssh_config(5),
    PATTERNS), so that brackets stand for themselves.
    """
    name = name.lower()
    if pattern.startswith("|1|"):
        return _is_hash_of(pattern, name)
    if not any(each in pattern for each in "*?"):
        return pattern.lower() == name
    parts = (re.escape(each).replace(r"\?", ".") for each in re.split(r"\*+", pattern.lower()))
    return re.fullmatch(".*".join(parts), name) is not None


def _is_hash_of(hashed: str, name: str) -> bool:
    _, _, salt, digest = [*hashed.split("|"), ""][:4]
    try:
        expected = b64decode(digest, validate=True)
        actual = hmac.digest(b64decode(salt, validate=True), name.encode(), sha1)
    except binascii.Error:
        return False
    return hmac.compare_digest(expected, actual)


def _last_byte(descriptor: int) -> bytes:
    return os.pread(descriptor, 1, os.fstat(descriptor).st_size - 1)
