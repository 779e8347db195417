"""Mails in words: Jinja2 templates of ours, or an operator's of the same names in their place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError, select_autoescape

from hostler_hub.notify.message import Message, Notice

_log = structlog.get_logger(__name__)

_OURS = Path(__file__).parent / "mail_templates"
_FACT_SIZE = 300
_TEXT_SIZE = 8000


@dataclass(frozen=True, slots=True)
class Words:
    """A mail's three parts."""

    subject: str
    text: str
    html: str


class Templates:
    """Renders messages. ``directory``: an operator's templates, or empty."""

    def __init__(self, directory: str, hub: Mapping[str, str]) -> None:
        self._hub = dict(hub)
        self._ours = _environment([_OURS])
        self._theirs = _environment([Path(directory), _OURS]) if directory else None

    def render(self, message: Message) -> Words:
        """The mail's words. An operator's template that fails gives way to ours: better a plain
        alarm than none."""
        if self._theirs is not None:
            try:
                return self._render(self._theirs, message)
            except (TemplateError, OSError, ValueError, TypeError) as error:
                _log.error("template failed, using the shipped ones", error=str(error))
        return self._render(self._ours, message)

    def _render(self, environment: Environment, message: Message) -> Words:
        known = {
            "about": message.about,
            "hub": self._hub,
            "notices": [_plain(notice) for notice in message.notices],
        }
        names = ("subject.txt", "mail.txt", "mail.html")
        return Words(*(environment.get_template(name).render(known) for name in names))


def _plain(notice: Notice) -> dict[str, Any]:
    """A notice as templates know it; an operator's may look incidents up as dictionaries."""
    incident = None if notice.incident is None else notice.incident.model_dump()
    return {"about": notice.about, "incident": incident}


def _environment(directories: list[Path]) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(directories),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"facts": _facts, "texts": _texts, "words": _in_words}
    return environment


def _facts(evidence: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """What is short: numbers, words, lines."""
    return [
        (key.replace("_", " "), value)
        for key, value in evidence.items()
        if value is not None and not isinstance(value, (dict, list)) and not _is_long(value)
    ]


def _texts(evidence: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is long: a console's or a log's last lines; their end matters most."""
    return [
        (key.replace("_", " "), value[-_TEXT_SIZE:])
        for key, value in evidence.items()
        if _is_long(value)
    ]


def _is_long(value: Any) -> bool:
    return isinstance(value, str) and (len(value) > _FACT_SIZE or "\n" in value)


def _in_words(kind: str) -> str:
    return {
        "missing": "missing",
        "stop_failed": "its instance cannot be stopped",
        "group_lost": "most of its group is lost",
        "compromised": "compromised",
        "unfit": "its machine is not as expected",
    }.get(kind, kind.replace("_", " "))
