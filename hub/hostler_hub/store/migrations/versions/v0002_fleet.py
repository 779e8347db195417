"""What operators do to a fleet, and machines that are elsewhere."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    # With what an instance was started: a definition may change while it lives.
    op.add_column("instances", sa.Column("driver", sa.Text(), nullable=True))
    op.add_column(
        "instances", sa.Column("driver_options", sa.JSON(none_as_null=True), nullable=True)
    )
