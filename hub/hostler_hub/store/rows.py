"""The type of a row as the store returns it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import RowMapping

# A row as the store returns it, or as it was just written.
Row = RowMapping | dict[str, Any]
