"""Artifacts under ids, who has stored which file, and logs that a quota has cut."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    # None: the file is called by the artifact's path, as before.
    op.add_column("artifacts", sa.Column("file", sa.Text(), nullable=True))
    op.add_column("steps", sa.Column("log_cut_at", sa.BigInteger(), nullable=True))
    op.create_table(
        "stored_files",
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("stored_by", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("stored_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("sha256", "stored_by", name="pk_stored_files"),
    )
