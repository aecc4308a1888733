"""The tables of the projection. Migrations make them; a test compares the two.

Rules:

* `at` is what lists are sorted by: the sender's time, but never later than when the message was received.
* `ord` sorts the messages that a row is made of (`cells.order_of`): an older one never overwrites a newer.
* Times are microseconds since 1970. A `key` is a digest of what identifies a row, where that may be long.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, Float, Index, Integer, MetaData, String, Table, text
from sqlalchemy.types import TypeEngine

METADATA: Final = MetaData()
#: Sites on nodes that showed a lock: few of many. A query finds them by its index only when it says just this.
LOCKED: Final = text("lock != ''")


def _text(name: str, *, key: bool = False) -> Column[str]:
    # By bytes in both databases: pages go on after a name, and both must sort alike.
    kind: TypeEngine[str] = String().with_variant(String(collation="C"), "postgresql")
    return Column(name, kind, primary_key=key, nullable=False, default="", server_default=None if key else "")


def _time(name: str, *, null: bool = True) -> Column[int]:
    return Column(name, BigInteger, nullable=null)


def _count(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False, default=0, server_default="0")


def _flag(name: str) -> Column[bool]:
    return Column(name, Boolean, nullable=False, default=False)


def _table(
    name: str, *columns: Column[str] | Column[int] | Column[bool] | Column[float] | Index, rowid: bool = True
) -> Table:
    # Without a rowid SQLite keeps the rows in the order of the key, which is then no second tree.
    return Table(name, METADATA, *columns, sqlite_with_rowid=rowid)


META: Final = _table("meta", _text("name", key=True), _text("value"))

PUSHES: Final = _table(
    "pushes",
    _text("key", key=True),
    _time("at", null=False),
    *map(_text, ("id", "source", "repo", "ref", "kind", "old", "new", "pusher", "commits", "projects", "correlation")),
    _count("commit_count"),
    Column("revision", BigInteger, nullable=True),
    Index("pushes_at", "at", "key"),
    Index("pushes_repo", "repo", "at", "key"),
)
BUILDS: Final = _table(
    "builds",
    _text("key", key=True),
    _time("at", null=False),
    *map(_text, ("id", "repo", "ref", "commit", "job", "number", "url", "state", "signer", "correlation", "ord")),
    Column("rank", Integer, nullable=False, default=0),
    Index("builds_at", "at", "key"),
    Index("builds_repo", "repo", "at", "key"),
    Index("builds_correlation", "correlation"),
)
NOTICES: Final = _table(
    "notices",
    _text("key", key=True),
    _time("at", null=False),
    *map(_text, ("id", "source", "text")),
    Index("notices_at", "at", "key"),
)
AUDIT: Final = _table(
    "audit",
    _text("key", key=True),
    _time("at", null=False),
    *map(_text, ("id", "action", "decision", "who", "signer", "place", "site", "rollout", "detail")),
    Index("audit_at", "at", "key"),
    Index("audit_site", "site", "at", "key"),
    Index("audit_action", "action", "at"),
)
NODES: Final = _table(
    "nodes",
    _text("node", key=True),
    _time("seen"),
    _flag("silent"),
    *map(_text, ("newest", "ord", "refs_ord", "instance", "version", "host", "facts", "classes", "cut")),
    _count("twins"),
)
REPOS: Final = _table("repos", _text("repo", key=True))
#: What was asked of nodes: an answer alone does not show what it was about.
QUESTIONS: Final = _table(
    "questions",
    _text("id", key=True),
    _time("at", null=False),
    *map(_text, ("details", "repo", "site")),
    _count("refs_limit"),
)
SITES: Final = _table(
    "sites",
    _text("site", key=True),
    *map(_text, ("repo", "ref", "commit", "reason", "by", "counts")),
    _count("nodes"),
    _time("changed"),
)
SITE_NODES: Final = _table(
    "site_nodes",
    _text("site", key=True),
    _text("node", key=True),
    *map(
        _text,
        (
            *("repo", "ord", "release", "ref", "commit", "by"),
            *("previous_release", "previous_ref", "previous_commit"),
            *("prepared_release", "prepared_ref", "prepared_commit"),
            *("last_phase", "last_outcome", "last_detail", "last_release", "last_ref", "last_commit"),
            *("problem", "lock", "rollout", "standing", "detail"),
        ),
    ),
    _time("since"),
    _time("last_at"),
    _time("seen"),
    _count("history_first"),
    _count("history_last"),
    Column("modified", BigInteger, nullable=True),
    Column("rank", Integer, nullable=False, default=0),
    Index("site_nodes_rank", "site", "rank", "node"),
    Index("site_nodes_node", "node"),
    Index("site_nodes_worst", "rank", "site", "node"),
    Index("site_nodes_repo", "repo", "site", "ref", "node"),
    Index("site_nodes_locked", "site", sqlite_where=LOCKED, postgresql_where=LOCKED),
)
#: What each repository contributes to a version of a site that is made of several: `commit` is their id.
VERSIONS: Final = _table(
    "versions",
    _text("commit", key=True),
    _time("at", null=False),
    _text("parts"),
    Index("versions_at", "at", "commit"),
)
NODE_REFS: Final = _table(
    "node_refs",
    _text("node", key=True),
    _text("repo", key=True),
    _text("key", key=True),
    *map(_text, ("ref", "commit", "object", "ord")),
    _time("at"),
    Index("node_refs_repo", "repo", "key"),
    rowid=False,
)
#: How many nodes hold a ref as just this: kept up to date as `NODE_REFS` changes, which has a row for each of them.
REF_FORMS: Final = _table(
    "ref_forms",
    _text("repo", key=True),
    _text("key", key=True),
    _text("commit", key=True),
    _text("object", key=True),
    Column("at", BigInteger, primary_key=True, autoincrement=False),
    _text("ref"),
    _count("nodes"),
    rowid=False,
)
MIRRORS: Final = _table(
    "mirrors",
    _text("node", key=True),
    _text("repo", key=True),
    _text("key", key=True),
    _time("at", null=False),
    *map(_text, ("ref", "commit", "outcome", "detail", "ord")),
    Column("seconds", Float, nullable=False, default=0.0),
    Index("mirrors_node", "node", "at", "key"),
    Index("mirrors_outcome", "outcome", "at"),
)
ROLLOUTS: Final = _table(
    "rollouts",
    _text("rollout", key=True),
    _time("at", null=False),
    *map(
        _text,
        ("site", "kind", "ref", "commit", "state", "counts", "failed", "requested_by", "host", "detail", "ord"),
    ),
    _time("began"),
    _time("changed"),
    _time("ended"),
    _flag("single"),
    _count("log_bytes"),
    Index("rollouts_at", "at", "rollout"),
    Index("rollouts_site", "site", "at", "rollout"),
)
COMMANDS: Final = _table(
    "commands",
    _text("request", key=True),
    _time("at", null=False),
    *map(_text, ("rollout", "site", "phase", "ref", "commit", "requested_by", "signer")),
    Index("commands_at", "at"),
)
ROLLOUT_NODES: Final = _table(
    "rollout_nodes",
    _text("rollout", key=True),
    _text("node", key=True),
    Column("rank", Integer, nullable=False, default=0),
    *map(_text, ("state", "phase", "detail", "request", "ord", "steps", "heard", "partial", "log_step")),
    _count("log_lines"),
    _count("log_lost"),
    _count("log_bytes"),
    _count("log_last"),
    _time("began"),
    _time("ended"),
    Index("rollout_nodes_rank", "rollout", "rank", "node"),
    Index("rollout_nodes_node", "node"),
)
LOG_CHUNKS: Final = _table(
    "log_chunks",
    _text("rollout", key=True),
    _text("node", key=True),
    Column("first", BigInteger, primary_key=True, autoincrement=False),
    _count("lines"),
    *map(_text, ("request", "step", "text")),
)
HISTORY: Final = _table(
    "history",
    _text("key", key=True),
    _time("at", null=False),
    _text("site"),
    _text("node"),
    _count("number"),
    *map(_text, ("phase", "outcome", "release", "ref", "commit", "requested_by", "detail", "request", "rollout")),
    _time("started"),
    _time("finished"),
    _flag("provisional"),
    Index("history_at", "at", "key"),
    Index("history_site", "site", "at", "key"),
    Index("history_place", "node", "site", "number"),
)
LOCKS: Final = _table(
    "locks",
    _text("site", key=True),
    *map(_text, ("id", "kind", "holder", "reason")),
    _count("serial"),
    _time("at", null=False),
    _time("since"),
    _time("until"),
    _flag("allow_rollback"),
)
#: The nodes that protect a site. `ord` is of the last description.
PROTECTED: Final = _table(
    "protected_sites",
    _text("site", key=True),
    _text("node", key=True),
    _text("ord"),
    Index("protected_sites_node", "node"),
)
#: Who may see a protected site on a node. `asked` is a command that the node has not answered yet.
ACCESS: Final = _table(
    "access_users",
    _text("site", key=True),
    _text("user", key=True),
    _text("node", key=True),
    *map(_text, ("state", "ord", "request", "by", "detail", "asked", "asked_ord", "asked_by")),
    _time("until"),
    Index("access_users_node", "node"),
)
