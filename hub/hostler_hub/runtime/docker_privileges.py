"""The Docker privileges that the hub's owner allows to workers' containers."""

from __future__ import annotations

from hostler_hub.errors import SettingsError

BIND = "bind="


DOCKER = (
    "capabilities",
    "devices",
    "host-namespaces",
    "host-network",
    "privileged",
    "security-opt",
)


def parse(text: str) -> frozenset[str]:
    """Parse names separated by commas. Raises SettingsError for a name that is unknown."""
    words = frozenset(word.strip() for word in text.split(",") if word.strip())
    for word in sorted(words):
        path = word.removeprefix(BIND)
        if word not in DOCKER and not (word != path and path.startswith("/")):
            known = ", ".join(DOCKER)
            raise SettingsError(f"docker_allow: {word!r} is none of {known} and {BIND}/PATH")
    return words
