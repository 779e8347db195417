"""What operators do to a fleet, and machines that are elsewhere."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    # With what an instance was started: a definition may change while it lives.
    op.add_column("instances", sa.Column("driver", sa.Text(), nullable=True))
    op.add_column(
        "instances", sa.Column("driver_options", sa.JSON(none_as_null=True), nullable=True)
    )
    op.add_column(
        "instances", sa.Column("kept", sa.Boolean(), nullable=False, server_default=sa.false())
    )
    op.create_index(
        "ix_instances_kept",
        "instances",
        ["driver"],
        sqlite_where=sa.column("kept").is_(sa.true()),
        postgresql_where=sa.column("kept").is_(sa.true()),
    )
    op.add_column("leases", sa.Column("process", sa.Text(), nullable=True))
    _incidents()
    _evidence()
    _workers()
    _refusals()
    _leases_of_people()
    _decisions()
    _groups()


def _incidents() -> None:
    op.create_table(
        "incidents",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("instance", sa.Text(), nullable=True),
        sa.Column("opened_at", sa.Float(), nullable=False),
        sa.Column("closed_at", sa.Float(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("close_reason", sa.Text(), nullable=True),
        sa.Column("evidence", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_incidents"),
    )
    op.create_index(
        "uq_incidents_open",
        "incidents",
        ["worker", "kind"],
        unique=True,
        sqlite_where=sa.text("closed_at IS NULL"),
        postgresql_where=sa.text("closed_at IS NULL"),
    )
    op.create_index("ix_incidents_worker", "incidents", ["worker", "id"], unique=False)
    op.create_table(
        "deliveries",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("incident", sa.Text(), nullable=True),
        sa.Column("about", sa.Text(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("recipient", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("held", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("next_at", sa.Float(), nullable=False),
        sa.Column("give_up_at", sa.Float(), nullable=False),
        sa.Column("sent_at", sa.Float(), nullable=True),
        sa.Column("message_id", sa.Text(), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_deliveries"),
    )
    op.create_index(
        "ix_deliveries_pending",
        "deliveries",
        ["next_at"],
        unique=False,
        sqlite_where=sa.text("state = 'pending'"),
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_index("ix_deliveries_incident", "deliveries", ["incident"], unique=False)
    op.create_index(
        "ix_deliveries_recipient",
        "deliveries",
        ["channel", "recipient", "sent_at"],
        unique=False,
    )


def _evidence() -> None:
    op.create_table(
        "evidence",
        sa.Column("id", _BIG, autoincrement=True, nullable=False),
        sa.Column("instance", sa.Text(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("texts", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_evidence"),
    )
    op.create_index("ix_evidence_worker", "evidence", ["worker", "id"])


def _workers() -> None:
    """What became of a worker's instance, and until when an order holds."""
    for column in (
        sa.Column("mode_until", sa.Float(), nullable=True),
        sa.Column("failed_starts", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("up_since", sa.Float(), nullable=True),
        sa.Column("uses", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("retiring", sa.Text(), nullable=True),
    ):
        op.add_column("workers", column)


def _refusals() -> None:
    """Who tried to attach and was not let in."""
    op.create_table(
        "refusals",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("client", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("first_at", sa.Float(), nullable=False),
        sa.Column("last_at", sa.Float(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name", "client", "reason", name="pk_refusals"),
    )


def _leases_of_people() -> None:
    op.add_column("workers", sa.Column("person", sa.JSON(none_as_null=True), nullable=True))
    op.create_table(
        "past_leases",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("instance", sa.Text(), nullable=True),
        sa.Column("lease", sa.JSON(), nullable=False),
        sa.Column("ended_at", sa.Float(), nullable=False),
        sa.Column("end_reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_past_leases"),
    )


def _decisions() -> None:
    op.create_table(
        "decisions",
        sa.Column("id", _BIG, autoincrement=True, nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("rule", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=True),
        sa.Column("build", sa.Text(), nullable=True),
        sa.Column("group", sa.Text(), nullable=True),
        sa.Column("numbers", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_decisions"),
    )
    op.create_index("ix_decisions_worker", "decisions", ["worker", "id"])
    op.create_index("ix_decisions_build", "decisions", ["build", "id"])
    op.create_index("ix_decisions_at", "decisions", ["at"])


def _groups() -> None:
    op.create_table(
        "groups",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("definition", sa.JSON(), nullable=False),
        sa.Column("defined_by", sa.Text(), nullable=False),
        sa.Column("defined_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_groups"),
    )
