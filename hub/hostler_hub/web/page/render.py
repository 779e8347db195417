"""Pages in HTML: templates that escape everything, and the headers that go with them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from pydantic import BaseModel
from starlette.responses import HTMLResponse, Response

from hostler_hub import __version__
from hostler_hub.errors import HubError

_DIRECTORY = Path(__file__).parent
STATIC = _DIRECTORY / "static"

# U8. Nothing inline, nothing from elsewhere.
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
    ),
    "cross-origin-opener-policy": "same-origin",
}


def page(template: str, *, status_code: int = 200, **known: Any) -> Response:
    """Render a template as a response. Raises UndefinedError if ``known`` lacks a variable
    that it uses.
    """
    text = _environment.get_template(template).render(version=__version__, **known)
    # A lone surrogate, which UTF-8 lacks, goes out as a question mark.
    return HTMLResponse(text.encode("utf-8", "replace"), status_code=status_code, headers=HEADERS)


def error(refusal: HubError) -> Response:
    """Render a refusal as a page, with its status and headers."""
    answer = page(
        "error.html", status_code=refusal.status, title=refusal.title, detail=refusal.detail
    )
    for name, value in refusal.headers().items():
        answer.headers[name] = value
    return answer


def _since(instant: str | None, now: float) -> str:
    """How long ago ``instant`` was, in the largest unit that fits; empty for None."""
    if instant is None:
        return ""
    return _duration(now - _seconds(instant)) + " ago"


def _until(instant: str | None, now: float) -> str:
    return "" if instant is None else "in " + _duration(_seconds(instant) - now)


def _took(started: str | None, finished: str | None, now: float) -> str:
    if started is None:
        return ""
    end = now if finished is None else _seconds(finished)
    return _duration(end - _seconds(started))


def _duration(seconds: float) -> str:
    seconds = max(0.0, seconds)
    if seconds < 10:
        return f"{seconds:.1f} s"
    for limit, size, unit in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def _seconds(instant: str) -> float:
    return datetime.fromisoformat(instant).replace(tzinfo=UTC).timestamp()


def _clock(instant: str | None) -> str:
    """The date and the time of ``instant``, to the second; empty for None."""
    return "" if instant is None else instant[:19].replace("T", " ")


def _size(size_bytes: int) -> str:
    size = float(size_bytes)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def _command(step: dict[str, Any]) -> str:
    """What a step does, in a line: its command, else its kind."""
    command = step.get("command") or step.get("argv")
    if isinstance(command, list):
        return " ".join(str(each) for each in command)
    return str(command or step.get("kind") or "")


def _pretty(value: BaseModel | dict[str, Any]) -> str:
    """A model or a document as indented JSON."""
    plain = value.model_dump() if isinstance(value, BaseModel) else value
    return json.dumps(plain, indent=2, ensure_ascii=False, sort_keys=True)


def _make() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_DIRECTORY / "templates"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "since": _since,
        "until": _until,
        "took": _took,
        "clock": _clock,
        "size": _size,
        "command": _command,
        "pretty": _pretty,
    }
    return environment


_environment = _make()
