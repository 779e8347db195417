"""A column type for text from workers, providers and users."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect


class AnyText(sa.types.TypeDecorator[str]):
    """Text of any content that can always be stored.

    PostgreSQL refuses NUL in text and neither driver encodes lone surrogates. Both become U+FFFD,
    so that no text from a worker can prevent the transition that records it.
    """

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        if value is None or (value.isascii() and "\0" not in value):
            return value
        storable = value.replace("\0", "\ufffd")
        return storable.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
