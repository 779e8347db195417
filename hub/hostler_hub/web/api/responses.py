"""JSON responses that cost one pass of the C encoder.

Handlers return these themselves: FastAPI would otherwise validate and copy every view of a list
again, which for a thousand workers takes longer than everything else together.
"""

import json
from typing import Any

from starlette.responses import Response


class Json(Response):
    """A JSON document; `content` is JSON-able data (NaN is refused)."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Compact UTF-8; a lone surrogate, which UTF-8 lacks, goes out as U+FFFD."""
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode("utf-8", "replace")


class Problem(Json):
    """RFC 9457."""

    media_type = "application/problem+json"
