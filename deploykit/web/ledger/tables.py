"""The tables of the ledger: what the console must not lose, and what no thief of the database can use.

Times are seconds since 1970 by the database's own clock, so that two consoles need not agree on theirs.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    text,
)

METADATA: Final = MetaData()

#: A rollout from its proposal to its end. `head` is the journal's head as JSON, with the mandate and its signatures.
#: `state` is `proposed`, `running`, `ended` or `withdrawn`. The console `owner` coordinates it until `leased_until`;
#: `epoch` counts owners: whoever is not the newest writes nothing more.
ROLLOUTS: Final = Table(
    "ledger_rollouts",
    METADATA,
    Column("rollout", String(200), primary_key=True),
    Column("site", String(200), nullable=False),
    Column("state", String(20), nullable=False),
    Column("head", Text, nullable=False),
    Column("requested_by", String(255), nullable=False),
    Column("begun", Float, nullable=False),
    Column("ended", Float),
    Column("owner", String(200), nullable=False, server_default=""),
    Column("epoch", Integer, nullable=False, server_default="0"),
    Column("leased_until", Float, nullable=False, server_default="0"),
    Index(
        "ledger_one_running",
        "site",
        unique=True,
        sqlite_where=text("state = 'running'"),
        postgresql_where=text("state = 'running'"),
    ),
    Index("ledger_rollouts_begun", "begun"),
)
#: The records of journals, as JSON.
RECORDS: Final = Table(
    "ledger_records",
    METADATA,
    Column("rollout", String(200), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("record", Text, nullable=False),
)
#: Requests to rollouts that wait for whoever coordinates them.
REQUESTS: Final = Table(
    "ledger_requests",
    METADATA,
    Column("name", String(80), primary_key=True),
    Column("rollout", String(200), nullable=False, index=True),
    Column("kind", String(20), nullable=False),
    Column("asked_by", String(255), nullable=False),
    Column("rollback", Boolean, nullable=False),
)
#: Logins of browsers. `key` is the SHA-256 of the id that only the browser has; the forms' token is derived from it.
SESSIONS: Final = Table(
    "ledger_sessions",
    METADATA,
    Column("key", String(64), primary_key=True),
    Column("name", String(255), nullable=False, index=True),
    Column("groups", Text, nullable=False),
    Column("login", String(20), nullable=False),
    Column("proof", String(64), nullable=False),
    Column("began", Float, nullable=False),
    Column("used", Float, nullable=False),
)
#: API tokens. `key` is the SHA-256 of the token.
TOKENS: Final = Table(
    "ledger_tokens",
    METADATA,
    Column("key", String(64), primary_key=True),
    Column("id", String(20), nullable=False, unique=True),
    Column("owner", String(255), nullable=False, index=True),
    Column("groups", Text, nullable=False),
    Column("label", String(200), nullable=False),
    Column("role", String(20), nullable=False),
    Column("sites", Text, nullable=False),
    Column("made", Float, nullable=False),
    Column("expires", Float, nullable=False),
    Column("used", Float),
)
#: Passkeys. `purpose` is `login` or `signing`, never both; `line` is the one for `allowed_signers`, of a signing key.
PASSKEYS: Final = Table(
    "ledger_passkeys",
    METADATA,
    Column("credential", String(1400), primary_key=True),
    Column("purpose", String(10), nullable=False),
    Column("name", String(255), nullable=False, index=True),
    Column("label", String(200), nullable=False),
    Column("public_key", LargeBinary, nullable=False),
    Column("rp_id", String(255), nullable=False),
    Column("counter", BigInteger, nullable=False),  # 32 bits without a sign
    Column("line", Text, nullable=False, server_default=""),
    Column("made", Float, nullable=False),
    Column("used", Float),
)
#: Things that are good once and soon over: challenges, states of an OIDC login, invitations. `key` is a SHA-256.
ONCE: Final = Table(
    "ledger_once",
    METADATA,
    Column("key", String(64), primary_key=True),
    Column("purpose", String(20), nullable=False),
    Column("value", Text, nullable=False),
    Column("expires", Float, nullable=False, index=True),
)
#: What API calls with an Idempotency-Key were answered. `key` is the SHA-256 of the caller and the key.
ANSWERS: Final = Table(
    "ledger_answers",
    METADATA,
    Column("key", String(64), primary_key=True),
    Column("request", String(64), nullable=False),
    Column("status", Integer, nullable=False),
    Column("location", String(2000), nullable=False),
    Column("body", Text, nullable=False),
    Column("answered", Float, nullable=False, index=True),
)
#: Grants of access that were asked for here: so that one without an answer is seen. The hash only lets it be extended.
ACCESS: Final = Table(
    "ledger_access",
    METADATA,
    Column("request", String(80), primary_key=True),
    Column("site", String(200), nullable=False, index=True),
    Column("user", String(64), nullable=False),
    Column("password_hash", String(200), nullable=False),
    Column("until", Float),
    Column("asked_by", String(255), nullable=False),
    Column("asked", Float, nullable=False),
)
#: Who has a page open from which a site can be changed.
PRESENCE: Final = Table(
    "ledger_presence",
    METADATA,
    Column("site", String(200), primary_key=True),
    Column("name", String(255), primary_key=True),
    Column("what", String(100), nullable=False),
    Column("since", Float, nullable=False),
    Column("seen", Float, nullable=False),
)

__all__ = [
    "ACCESS",
    "ANSWERS",
    "METADATA",
    "ONCE",
    "PASSKEYS",
    "PRESENCE",
    "RECORDS",
    "REQUESTS",
    "ROLLOUTS",
    "SESSIONS",
    "TOKENS",
]
