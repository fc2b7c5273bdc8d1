"""The tables, one noun each.

Two counters carry the whole bookkeeping of a project:

`seq`
    A project's truth has a number, `projects.truth_seq`, that grows with every change: an annotation that
    is new, edited or deleted, a task that went, another labeling setup. The annotation and the task keep the
    number of their last change. Whoever works on truth reads the number first and writes down up to which
    number the work is done, so a change that arrives meanwhile is never mistaken for done.
    So a task is *built* up to `built_seq` (its label map is on disk) and *settled* up to `settled_seq` (a
    round that ended well accounted for it); it waits for either while the number is below its `truth_seq`.
`settled_round`
    The round that accounted for an annotation as it is now; empty means pending. `trained_round` is set
    besides when it was part of the training set.

Times are Unix seconds as float; Label Studio's own stamps are kept as its text, which sorts by time.
"""

from __future__ import annotations

import secrets

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    }
)

LOTS = 2**31  # lots of tasks are below this: whole numbers that both databases hold in four bytes


def _draw_lot() -> int:
    """The order of lots is the order in which tasks are drawn at random, by an index instead of a sort."""
    return secrets.randbelow(LOTS)


def _lease_columns() -> tuple[Column[str], Column[float]]:
    """Who works on the row, and until when that holds without a word from them."""
    return Column("leased_by", String), Column("leased_until", Float)


def _project_key() -> Column[int]:
    return Column(
        "project_id", BigInteger, ForeignKey("projects.project_id", ondelete="CASCADE"), primary_key=True
    )


projects = Table(
    "projects",
    metadata,
    Column("project_id", BigInteger, primary_key=True, autoincrement=False),
    Column("created_s", BigInteger),  # Label Studio's creation time; another one means another project
    Column("is_confirmed", Boolean, nullable=False, server_default=text("false")),  # by Label Studio's API
    Column("webhook_key", Text, nullable=False, server_default=""),  # secret: what its webhook has to bring
    Column("folder", String, nullable=False),  # below `data_dir/projects`
    Column("title", Text, nullable=False, server_default=""),
    Column("label_config", Text, nullable=False, server_default=""),
    Column("hostname", Text, nullable=False, server_default=""),
    Column("access_token", Text, nullable=False, server_default=""),  # secret: read by the client alone
    Column("current_version", String),
    Column("displaced_version", String),  # what should be current and cannot be read
    Column("live_problem", Text),  # why
    Column("truth_seq", Integer, nullable=False, server_default="0"),
    Column("attempted_seq", Integer, nullable=False, server_default="0"),  # what the last finished round saw
    Column("last_truth_at", Float),
    # Requests are counted, because moments of several clocks cannot be compared.
    Column("train_requests", Integer, nullable=False, server_default="0"),
    Column("train_answered", Integer, nullable=False, server_default="0"),  # by a round that ended
    Column("cancel_requests", Integer, nullable=False, server_default="0"),
    Column("reconciled_at", Float),
    Column("last_error", Text),
)

tasks = Table(
    "tasks",
    metadata,
    _project_key(),
    Column("task_id", BigInteger, primary_key=True, autoincrement=False),
    Column("data", Text, nullable=False, server_default="{}"),
    Column("ls_updated_at", String),  # as of the last reconciliation; events leave it alone
    Column("deleted", Boolean, nullable=False, server_default=text("false")),
    Column("seen_at", Float, nullable=False),
    Column("missed_at", Float),  # when a listing first left it out
    Column("truth_seq", Integer, nullable=False, server_default="0"),
    Column("built_seq", Integer, nullable=False, server_default="0"),
    Column("settled_seq", Integer, nullable=False, server_default="0"),
    Column("retry_at", Float),  # when to try again what could not be built
    Column("truth", Text),  # JSON of `ml_backend.strokes.build_truth.TaskTruth`
    Column("findings", Text),  # JSON list of lint findings, empty when there are none
    Column("scored_version", String),  # the model that looked last; empty while none did
    Column("score", Float),  # what it found: low = look here first
    Column("looked_at", Float, nullable=False, server_default="0"),  # when last scored, or tried
    Column("lot", Integer, nullable=False, server_default="0", default=_draw_lot),
    Index(None, "project_id", "truth_seq"),
    # What is to be scored next is found at the start of an index, however many tasks there are.
    Index(None, "project_id", "deleted", "scored_version", "looked_at", "lot"),
    Index(None, "project_id", "deleted", "looked_at"),
    Index(None, "project_id", "deleted", "score"),
    Index(None, "project_id", "deleted", "lot"),
)

class_counts = Table(
    "class_counts",
    metadata,
    _project_key(),
    Column("task_id", BigInteger, primary_key=True, autoincrement=False),
    Column("class_index", Integer, primary_key=True, autoincrement=False),
    Column("pixels", BigInteger, nullable=False),
    Column("objects", Integer, nullable=False),
)

annotation_table = Table(
    "annotations",
    metadata,
    _project_key(),
    Column("annotation_id", BigInteger, primary_key=True, autoincrement=False),
    Column("task_id", BigInteger),  # empty in the tombstone of one that was never seen
    Column("user_id", BigInteger),
    Column("updated_at", String, nullable=False, server_default=""),
    Column("was_cancelled", Boolean, nullable=False, server_default=text("false")),
    Column("deleted", Boolean, nullable=False, server_default=text("false")),
    Column("result", LargeBinary),  # zlib of the JSON list
    Column("lead_time_s", Float),  # as the browser measured it; empty for what came over the API
    Column("from_prediction", Boolean, nullable=False, server_default=text("false")),  # anybody's
    Column("received_at", Float, nullable=False),
    Column("seq", Integer, nullable=False),
    Column("settled_round", Integer),
    Column("trained_round", Integer),
    Index(None, "project_id", "task_id"),
)

efforts = Table(
    "efforts",
    metadata,
    _project_key(),
    Column("annotation_id", BigInteger, primary_key=True, autoincrement=False),
    Column("task_id", BigInteger, nullable=False),
    Column("seq", Integer, nullable=False),  # of the truth that it was measured on
    Column("is_open", Boolean, nullable=False),  # no round counted it as it is now
    Column("measured", Text, nullable=False),  # JSON of `ml_backend.strokes.effort.Measured`
    Column("counted", Text),  # the same, as the last round counted it
    Index(None, "project_id", "task_id"),
    Index(None, "project_id", "is_open"),
)

sent_regions = Table(
    "sent_regions",
    metadata,
    _project_key(),
    Column("task_id", BigInteger, primary_key=True, autoincrement=False),
    Column("region_id", String, primary_key=True),
    Column("model_version", String, primary_key=True),
    Column("class_name", Text, nullable=False),
    Column("top", Integer, nullable=False),
    Column("left", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("width", Integer, nullable=False),
    Column("mask", LargeBinary, nullable=False),  # zlib of the packed bits
    Column("sent_at", Float, nullable=False),
    Index(None, "project_id", "sent_at"),
)

predictions = Table(
    "predictions",
    metadata,
    _project_key(),
    Column("task_id", BigInteger, primary_key=True, autoincrement=False),
    Column("model_version", String, primary_key=True),
    Column("fingerprint", String, nullable=False),  # of all else that the answer depends on
    Column("score", Float),  # what Label Studio is told; `tasks.score` is what the model found
    Column("payload", LargeBinary, nullable=False),  # zlib of the JSON object
    Column("regions", Text, nullable=False, server_default="[]"),  # JSON list of the questions, in pixels
    Column("embedding", LargeBinary),  # float16, what the image looks like to the model
    Column("classes", Text, nullable=False, server_default="[]"),  # JSON list of those that the model sees
    Column("created_at", Float, nullable=False),
    Index(None, "project_id", "model_version", "score"),
)

pushes = Table(
    "pushes",
    metadata,
    _project_key(),
    Column("task_id", BigInteger, primary_key=True, autoincrement=False),
    Column("due_at", Float, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("is_open", Boolean, nullable=False, server_default=text("true")),  # nothing was computed yet
    *_lease_columns(),
    Index(None, "project_id", "due_at"),
)

scorings = Table(
    "scorings",
    metadata,
    _project_key(),
    Column("task_id", BigInteger, primary_key=True, autoincrement=False),
    Column("model_version", String, nullable=False),
    Column("position", Integer, nullable=False),
    *_lease_columns(),
    Index(None, "project_id", "position"),
)

reviews = Table(
    "reviews",
    metadata,
    _project_key(),
    Column("planned_version", String),  # for which tasks to score were chosen
    Column("spent_s", Float, nullable=False, server_default="0"),  # on scoring them, over all workers
    Column("score_retry_at", Float),  # images cannot be had before
    Column("kept_version", String),  # that Label Studio was told of
    Column("settled_version", String),  # the same, and all predictions were sent before
    Column("ranked_version", String),  # whose scores were made diverse
    Column("keep_retry_at", Float),
    Column("keep_attempts", Integer, nullable=False, server_default="0"),
    Column("asked_at", Float),  # somebody waited for a prediction
    *_lease_columns(),
)

models = Table(
    "models",
    metadata,
    _project_key(),
    Column("model_version", String, primary_key=True),
    Column("round", Integer, nullable=False),
    Column("parent", String),
    Column("draft", Boolean, nullable=False),
    Column("truth_seq", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("report", Text, nullable=False),
    Column("folder", String, nullable=False),
)

rounds = Table(
    "rounds",
    metadata,
    _project_key(),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("kind", String, nullable=False, server_default="round"),
    Column("state", String, nullable=False),  # running, done, failed, cancelled, interrupted
    Column("owner", String, nullable=False),
    Column("truth_seq", Integer, nullable=False),
    Column("started_at", Float, nullable=False),
    Column("heartbeat_at", Float, nullable=False),
    Column("finished_at", Float),
    Column("progress", Float, nullable=False, server_default="0"),
    Column("eta_s", Float),
    Column("model_version", String),  # what it published, if it did
    Column("report", Text),
    Column("error", Text),
    Column("requests", Integer, nullable=False, server_default="0"),  # for rounds, when this one began
    Column("trouble", String),  # machine, memory: why it was interrupted, if its worker could still say
)
Index(
    "one_running_round",
    rounds.c.project_id,
    unique=True,
    sqlite_where=rounds.c.state == "running",
    postgresql_where=rounds.c.state == "running",
)

wakeups = Table(
    "wakeups",
    metadata,
    _project_key(),
    Column("kind", String, primary_key=True),
    Column("sent_at", Float, nullable=False),
)

troubles = Table(
    "troubles",
    metadata,
    _project_key(),
    Column("kind", String, primary_key=True),  # what does not work: reconcile, push, sync
    Column("message", Text, nullable=False),
    Column("since", Float, nullable=False),
)

workers = Table(
    "workers", metadata, Column("owner", String, primary_key=True), Column("seen_at", Float, nullable=False)
)

# The one row; the data folder holds the same identity.
installation = Table("installation", metadata, Column("identity", String, primary_key=True))
