"""The texts of mails: Jinja2 templates of the hub's own, or an operator's files of the same
names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError, select_autoescape

from hostler_hub.notify.message import Message

_log = structlog.get_logger(__name__)

_OURS = Path(__file__).parent / "mail_templates"
_FACT_SIZE = 300
_TEXT_SIZE = 8000


@dataclass(frozen=True, slots=True)
class RenderedMessage:
    """The subject, the text and the HTML of a mail."""

    subject: str
    text: str
    html: str


class Templates:
    """Renders messages. ``directory``: where the operator's templates are; empty for none."""

    def __init__(self, directory: str, hub: Mapping[str, str]) -> None:
        self._hub = dict(hub)
        self._ours = _environment([_OURS])
        self._theirs = _environment([Path(directory), _OURS]) if directory else None

    def render(self, message: Message) -> RenderedMessage:
        """Render the mail. If an operator's template fails, the hub's own is used: a plain alarm is
        better than none.
        """
        if self._theirs is not None:
            try:
                return self._render(self._theirs, message)
            except (TemplateError, OSError, ValueError, TypeError) as error:
                _log.error("template failed, using the shipped ones", error=str(error))
        return self._render(self._ours, message)

    def _render(self, environment: Environment, message: Message) -> RenderedMessage:
        known = {
            "about": message.about,
            "hub": self._hub,
            "notices": [
                {"about": notice.about, "incident": notice.incident} for notice in message.notices
            ],
        }
        names = ("subject.txt", "mail.txt", "mail.html")
        return RenderedMessage(*(environment.get_template(name).render(known) for name in names))


def _environment(directories: list[Path]) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(directories),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"facts": _facts, "texts": _texts, "words": _spaced}
    return environment


def _facts(evidence: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The short values of the evidence: numbers, words, single lines."""
    return [
        (key.replace("_", " "), value)
        for key, value in evidence.items()
        if value is not None and not isinstance(value, (dict, list)) and not _is_long(value)
    ]


def _texts(evidence: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The long values of the evidence, such as the last lines of a console or log; their end is
    kept.
    """
    return [
        (key.replace("_", " "), value[-_TEXT_SIZE:])
        for key, value in evidence.items()
        if _is_long(value)
    ]


def _is_long(value: Any) -> bool:
    return isinstance(value, str) and (len(value) > _FACT_SIZE or "\n" in value)


def _spaced(kind: str) -> str:
    return {
        "missing": "missing",
        "stop_failed": "its instance cannot be stopped",
        "group_lost": "most of its group is lost",
        "compromised": "compromised",
        "unfit": "its machine is not as expected",
    }.get(kind, kind.replace("_", " "))
