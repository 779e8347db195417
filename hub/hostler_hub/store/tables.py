"""The store's tables: SQLAlchemy Core, one definition for SQLite and PostgreSQL.

Instants are seconds since the epoch (UTC) as floats; documents are JSON. The columns that a
compare-and-set or a filter needs are columns; what is only ever read whole is a document.
"""

from __future__ import annotations

import sqlalchemy as sa

from hostler_hub.store.text import AnyText

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")  # SQLite autoincrements INTEGER only

meta = sa.Table(
    "meta",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)

workers = sa.Table(
    "workers",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("definition", sa.JSON, nullable=False),
    sa.Column("password_hash", sa.Text),
    sa.Column("mode", sa.Text, nullable=False),
    sa.Column("mode_reason", AnyText),
    sa.Column("mode_by", sa.Text),
    sa.Column("mode_at", sa.Float),
    sa.Column("mode_until", sa.Float),  # then it is active again
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("state_since", sa.Float, nullable=False),
    # The fencing epoch: raised in the transaction that records the intent to start an instance.
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("instance_id", sa.Text),
    sa.Column("handle", sa.JSON(none_as_null=True)),
    sa.Column("quarantine_until", sa.Float),
    sa.Column("quarantine_reason", AnyText),
    sa.Column("backoff_s", sa.Float, nullable=False),
    sa.Column("last_error", AnyText),
    sa.Column("missing_since", sa.Float),
    sa.Column("missing_reason", AnyText),
    sa.Column("failed_starts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("up_since", sa.Float),
    sa.Column("uses", sa.Integer, nullable=False, server_default="0"),
    sa.Column("retiring", AnyText),  # why its instance gets no new lease
    sa.Column("tainted", sa.Boolean, nullable=False),
    sa.Column("removing", sa.Boolean, nullable=False),
    sa.Column("destroy_attempts", sa.Integer, nullable=False),
    sa.Column("facts", sa.JSON, nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("person", sa.JSON(none_as_null=True)),  # whose lease it is, or who waits for one
)

# The ledger: every instance ever intended, so that a provider's list can be held against it.
instances = sa.Table(
    "instances",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("worker", sa.Text, nullable=False),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("token_hash", sa.Text),
    sa.Column("session_hash", sa.Text),
    sa.Column("process", sa.Text),  # which agent process it was that attached last
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("ended_at", sa.Float),
    sa.Column("end_reason", AnyText),
    # With what it was started: a definition may change while it lives.
    sa.Column("driver", sa.Text),
    sa.Column("driver_options", sa.JSON(none_as_null=True)),
    # It has ended, and its machine may still be there, stopped: where it is has to be looked at.
    sa.Column("kept", sa.Boolean, nullable=False, server_default=sa.false()),
)
sa.Index("ix_instances_worker", instances.c.worker, instances.c.epoch)
sa.Index(
    "ix_instances_kept",
    instances.c.driver,
    sqlite_where=instances.c.kept.is_(sa.true()),
    postgresql_where=instances.c.kept.is_(sa.true()),
)
# V4: the database itself refuses a second live instance of a worker.
sa.Index(
    "uq_instances_live_worker",
    instances.c.worker,
    unique=True,
    sqlite_where=instances.c.ended_at.is_(None),
    postgresql_where=instances.c.ended_at.is_(None),
)

events = sa.Table(
    "events",
    metadata,
    sa.Column("id", _BIG, primary_key=True, autoincrement=True),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("worker", sa.Text, nullable=False),
    sa.Column("instance", sa.Text),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("event", sa.Text, nullable=False),
    sa.Column("from_state", sa.Text, nullable=False),
    sa.Column("to_state", sa.Text, nullable=False),
    sa.Column("cause", AnyText),
)
sa.Index("ix_events_worker", events.c.worker, events.c.id)

# Why: what was decided, by which rule, on which numbers.
decisions = sa.Table(
    "decisions",
    metadata,
    sa.Column("id", _BIG, primary_key=True, autoincrement=True),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("rule", sa.Text, nullable=False),
    sa.Column("text", AnyText, nullable=False),
    sa.Column("worker", sa.Text),
    sa.Column("build", sa.Text),
    sa.Column("group", sa.Text),
    sa.Column("numbers", sa.JSON, nullable=False),
)
sa.Index("ix_decisions_worker", decisions.c.worker, decisions.c.id)
sa.Index("ix_decisions_build", decisions.c.build, decisions.c.id)
sa.Index("ix_decisions_at", decisions.c.at)

# What groups of workers have in common: how many are kept idle, how many there may be.
groups = sa.Table(
    "groups",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("definition", sa.JSON, nullable=False),
    sa.Column("defined_by", sa.Text, nullable=False),
    sa.Column("defined_at", sa.Float, nullable=False),
)

builds = sa.Table(
    "builds",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("spec", sa.JSON, nullable=False),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("submitted_by", sa.Text, nullable=False),
    sa.Column("submitted_at", sa.Float, nullable=False),
    sa.Column("not_before", sa.Float),  # a retry waits for its backoff
    sa.Column("started_at", sa.Float),
    sa.Column("finished_at", sa.Float),
    sa.Column("worker", sa.Text),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("result_text", AnyText),
    sa.Column("cancel_reason", AnyText),
    sa.Column("idempotency_key", sa.Text),
    sa.Column("spec_digest", sa.Text),
    sa.UniqueConstraint("submitted_by", "idempotency_key"),
)
sa.Index("ix_builds_state", builds.c.state, builds.c.id)
sa.Index("ix_builds_worker", builds.c.worker, builds.c.id)
# Partial, so that the queue's index stays as small as the queue.
sa.Index(
    "ix_builds_queue",
    builds.c.priority,
    builds.c.id,
    sqlite_where=builds.c.state == "queued",
    postgresql_where=builds.c.state == "queued",
)

leases = sa.Table(
    "leases",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("build", sa.Text, nullable=False),
    sa.Column("worker", sa.Text, nullable=False),
    sa.Column("instance", sa.Text, nullable=False),
    sa.Column("process", sa.Text),  # which agent process was attached when it began
    sa.Column("epoch", sa.Integer, nullable=False),  # the build's attempt: 1, 2, ...
    sa.Column("acquired_at", sa.Float, nullable=False),
    sa.Column("ended_at", sa.Float),
    sa.Column("end_reason", AnyText),
)
# V5: the database itself refuses a second unexpired lease on a build.
sa.Index(
    "uq_leases_open_build",
    leases.c.build,
    unique=True,
    sqlite_where=leases.c.ended_at.is_(None),
    postgresql_where=leases.c.ended_at.is_(None),
)
sa.Index("ix_leases_worker", leases.c.worker, leases.c.ended_at)

# Leases that people had; one that lasts is in its worker's row.
past_leases = sa.Table(
    "past_leases",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("worker", sa.Text, nullable=False),
    sa.Column("instance", sa.Text),
    sa.Column("lease", sa.JSON, nullable=False),
    sa.Column("ended_at", sa.Float, nullable=False),
    sa.Column("end_reason", AnyText, nullable=False),
)

steps = sa.Table(
    "steps",
    metadata,
    sa.Column("build", sa.Text, primary_key=True),
    sa.Column("attempt", sa.Integer, primary_key=True),
    sa.Column("index", sa.Integer, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("rc", sa.BigInteger),  # Windows ends processes with 0xC0000005
    sa.Column("failure_reason", AnyText),
    sa.Column("started_at", sa.Float),
    sa.Column("finished_at", sa.Float),
    sa.Column("log_size_bytes", sa.BigInteger, nullable=False),
    sa.Column("log_cut_at", sa.BigInteger),  # where a quota ended it; behind is one line of the hub
    sa.Column("receipt", sa.JSON(none_as_null=True)),
    sa.Column("result", sa.JSON(none_as_null=True)),  # what the step's kind brought
)

# Files that builds gave to the hub; their bytes are in its state directory, BUILD/ATTEMPT/`file`.
artifacts = sa.Table(
    "artifacts",
    metadata,
    sa.Column("build", sa.Text, primary_key=True),
    sa.Column("attempt", sa.Integer, primary_key=True),
    sa.Column("path", sa.Text, primary_key=True),
    sa.Column("file", sa.Text),  # none: an older hub called the file by its path
    sa.Column("step", sa.Integer, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("sha256", sa.Text, nullable=False),
    sa.Column("modified_at", sa.Float),
    sa.Column("stored_at", sa.Float, nullable=False),
)

# Who has stored which file for builds to download; each has it in its own quota.
stored_files = sa.Table(
    "stored_files",
    metadata,
    sa.Column("sha256", sa.Text, primary_key=True),
    sa.Column("stored_by", sa.Text, primary_key=True),  # empty: an older hub did not write it down
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("stored_at", sa.Float, nullable=False),
)

# V7: a step's log is one run of bytes; a chunk is (offset, stream, bytes) and never changes.
log_chunks = sa.Table(
    "log_chunks",
    metadata,
    sa.Column("build", sa.Text, primary_key=True),
    sa.Column("attempt", sa.Integer, primary_key=True),
    sa.Column("index", sa.Integer, primary_key=True),
    sa.Column("offset", sa.BigInteger, primary_key=True),
    sa.Column("stream", sa.Text, nullable=False),
    sa.Column("data", sa.LargeBinary, nullable=False),
)

# What people are told of: from when something went wrong with a worker to when it was over.
incidents = sa.Table(
    "incidents",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("worker", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("instance", sa.Text),
    sa.Column("opened_at", sa.Float, nullable=False),
    sa.Column("closed_at", sa.Float),
    sa.Column("reason", AnyText, nullable=False),
    sa.Column("close_reason", AnyText),
    sa.Column("evidence", sa.JSON, nullable=False),
)
# V16: the database itself refuses a second open incident of a kind on a worker.
sa.Index(
    "uq_incidents_open",
    incidents.c.worker,
    incidents.c.kind,
    unique=True,
    sqlite_where=incidents.c.closed_at.is_(None),
    postgresql_where=incidents.c.closed_at.is_(None),
)
sa.Index("ix_incidents_worker", incidents.c.worker, incidents.c.id)

# The outbox: one message to one recipient, tried until it is sent or given up (D7).
deliveries = sa.Table(
    "deliveries",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("incident", sa.Text),  # none for a test
    sa.Column("about", sa.Text, nullable=False),  # opened, evidence, closed, test
    sa.Column("channel", sa.Text, nullable=False),
    sa.Column("recipient", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("held", sa.Boolean, nullable=False),  # over the hour's cap: goes into a digest
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("next_at", sa.Float, nullable=False),
    sa.Column("give_up_at", sa.Float, nullable=False),
    sa.Column("sent_at", sa.Float),
    sa.Column("message_id", sa.Text),  # shared by those that went in one digest
    sa.Column("last_error", AnyText),
)
sa.Index(
    "ix_deliveries_pending",
    deliveries.c.next_at,
    sqlite_where=deliveries.c.state == "pending",
    postgresql_where=deliveries.c.state == "pending",
)
sa.Index("ix_deliveries_incident", deliveries.c.incident)
sa.Index(
    "ix_deliveries_recipient", deliveries.c.channel, deliveries.c.recipient, deliveries.c.sent_at
)
# What drivers could say of instances that failed, before they were destroyed.
evidence = sa.Table(
    "evidence",
    metadata,
    sa.Column("id", _BIG, primary_key=True, autoincrement=True),
    sa.Column("instance", sa.Text, nullable=False),
    sa.Column("worker", sa.Text, nullable=False),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("why", AnyText, nullable=False),
    sa.Column("texts", sa.JSON, nullable=False),
)
sa.Index("ix_evidence_worker", evidence.c.worker, evidence.c.id)

# Who tried to attach and was not let in; the rows are few (see `refusals`).
refusals = sa.Table(
    "refusals",
    metadata,
    sa.Column("name", AnyText, primary_key=True),
    sa.Column("client", AnyText, primary_key=True),
    sa.Column("reason", AnyText, primary_key=True),
    sa.Column("first_at", sa.Float, nullable=False),
    sa.Column("last_at", sa.Float, nullable=False),
    sa.Column("count", sa.Integer, nullable=False),
)

tokens = sa.Table(
    "tokens",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("lookup", sa.Text, nullable=False, unique=True),
    sa.Column("token_hash", sa.Text, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("expires_at", sa.Float),
)
