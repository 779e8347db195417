"""JSON responses that cost one pass of an encoder.

Handlers return these themselves: a view is validated when it is made, and FastAPI would validate
and copy every view of a list once more, which for a thousand workers takes longer than everything
else together.
"""

import json
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError
from starlette.responses import Response

from hostler_hub.specs.printable import escape_json


class Json(Response):
    """A JSON document; `content` is a view, or plain JSON-able data."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Compact UTF-8 that no terminal obeys: control characters go out as JSON's escapes. A lone
        surrogate, which UTF-8 lacks, goes out as a question mark.

        A NaN of a view's goes out as null; of plain data it is refused with ValueError.
        """
        if isinstance(content, BaseModel):
            try:
                return escape_json(content.model_dump_json()).encode()
            except PydanticSerializationError:  # it holds a lone surrogate, in whoever's words
                content = content.model_dump()
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return escape_json(text).encode("utf-8", "replace")


class Problem(Json):
    """RFC 9457."""

    media_type = "application/problem+json"
