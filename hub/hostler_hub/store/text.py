"""A column type for text from workers, providers and users."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from hostler_hub.specs.printable import escape_controls

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect


class AnyText(sa.types.TypeDecorator[str]):
    """Text of any content that can always be stored, and that no terminal obeys.

    Control characters are stored as their codes in words, and those of old rows are read so.
    PostgreSQL refuses NUL in text and neither driver encodes lone surrogates. Those become U+FFFD,
    so that no text from a worker can prevent the transition that records it.
    """

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        if value is None or (value.isascii() and value.isprintable()):
            return value
        storable = escape_controls(value.replace("\0", "\ufffd"))
        return storable.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        return None if value is None else escape_controls(value)
