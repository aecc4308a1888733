"""The metrics there are: names, labels, what a label may say. Values only; `docs/metrics.md` has the same table.

Rules:

* A name is `deploykit_` and then `[a-z][a-z0-9_]*`. A counter ends in `_total`; seconds and times in their unit.
* A label has values of a closed set: words of ours, or the names in the settings. Everything else is `other`.
* No ref, commit, request id, user or node is a label: each new value would be a new series for ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import attrs

from deploykit.messages import BY_TYPE

PREFIX: Final = "deploykit_"
#: The value of a label for what is not in its closed set.
OTHER: Final = "other"

MetricKind = Literal["counter", "gauge", "histogram", "info"]

#: Labels whose values are names in the settings.
NAMED: Final = ("repo", "site", "source", "channel", "destination")
#: Label values that are read from the disk: one series a site, of what is live now.
READ: Final = ("release", "version")

PHASES: Final = ("deploy", "prepare", "activate", "rollback", "discard")
DEPLOY_OUTCOMES: Final = ("success", "failure", "rolled-back", "refused")
FETCH_OUTCOMES: Final = ("updated", "unchanged", "refused", "failed")
VERDICTS: Final = ("ack", "retry", "reject", "failed")
BUILD_OUTCOMES: Final = (
    *("queued", "joined", "scanned", "refused", "missing"),
    *("busy", "unreachable", "unanswered"),
)
GATE_OUTCOMES: Final = ("open", "closed", "not-needed", "without-build")
DECISIONS: Final = ("allowed", "denied")
QUESTION_OUTCOMES: Final = ("answered", "denied", "unverified", "repeated", "dropped", "expired")
#: What became of a package source that was to be read, as `ReadOutcome` has it.
PACKAGE_READS: Final = ("read", "locked", "failed", "missing")

WEBHOOK_RESULTS: Final = (
    *("queued", "copy", "ignored", "unmapped"),
    *("unverified", "refused", "too-large", "too-slow", "failed"),
)
#: What of the console was asked for, how it was answered, and what became of messages.
WEB_PARTS: Final = ("page", "api", "events", "static", "hook")
WEB_ANSWERS: Final = ("1xx", "2xx", "3xx", "4xx", "5xx", "aborted")
WEB_MESSAGES: Final = ("kept", "distrusted", "unreadable", "dropped")
#: What became of messages that might be sent to people elsewhere, and of what was sent.
NOTIFY_HEARD: Final = ("taken", "ignored", "repeated", "distrusted", "unreadable")
NOTIFY_RESULTS: Final = ("sent", "later", "refused", "folded", "expired")

#: Seconds: a deploy may take half an hour.
DEPLOY_BUCKETS: Final = (1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0)


@attrs.frozen(slots=True)
class MetricSpec:
    """One metric.

    Args:
        name: without the prefix.
        kind: what it is for Prometheus.
        help: one line.
        labels: label -> its closed set; empty for names in the settings (`NAMED`) and for what is read (`READ`).
        buckets: upper ends of a histogram's buckets, without infinity.
    """

    name: str
    kind: MetricKind
    help: str
    labels: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict)
    buckets: tuple[float, ...] = ()

    @property
    def full_name(self) -> str:
        """The name that a scrape shows."""
        return PREFIX + self.name


@attrs.define(slots=True)
class BucketCounts:
    """A histogram of one label set: how many values each bucket holds (the last one up to infinity), and their sum."""

    counts: list[int]
    total: float = 0.0


@attrs.frozen(slots=True)
class MetricReading:
    """One metric at one moment: label values in the table's order -> value."""

    spec: MetricSpec
    values: Mapping[tuple[str, ...], float | BucketCounts]


_SITE: Final[Mapping[str, tuple[str, ...]]] = {"site": ()}
_REPO: Final[Mapping[str, tuple[str, ...]]] = {"repo": ()}

METRICS: Final = (
    MetricSpec(
        "deploys_total",
        "counter",
        "Deploy commands that were obeyed or refused.",
        {**_SITE, "phase": PHASES, "outcome": DEPLOY_OUTCOMES},
    ),
    MetricSpec(
        "deploy_duration_seconds",
        "histogram",
        "Time from a command's start on this node to its result, without refusals.",
        {**_SITE, "phase": PHASES},
        DEPLOY_BUCKETS,
    ),
    MetricSpec(
        "mirror_fetches_total",
        "counter",
        "Fetches and comparisons of a mirror with its origin.",
        {**_REPO, "outcome": FETCH_OUTCOMES},
    ),
    MetricSpec(
        "mirror_lag_seconds",
        "gauge",
        "Time from a push to the fetch that followed it; grows while a push waits for its origin.",
        _REPO,
    ),
    MetricSpec(
        "mirror_synced_timestamp_seconds",
        "gauge",
        "When the mirror was last compared with its origin without an error, in seconds since 1970.",
        _REPO,
    ),
    MetricSpec("outbox_records", "gauge", "Records that wait in the outbox; messages of one push are one record."),
    MetricSpec(
        "outbox_oldest_timestamp_seconds",
        "gauge",
        "When the oldest waiting record was written, in seconds since 1970; absent while none waits.",
    ),
    MetricSpec(
        "access_users", "gauge", "Users in the access file of a protected site, anybody's lines included.", _SITE
    ),
    MetricSpec(
        "package_source_reads_total",
        "counter",
        "Runs of the package manager that read a source, by what came of them.",
        {"source": (), "outcome": PACKAGE_READS},
    ),
    MetricSpec(
        "keepalive_up",
        "gauge",
        "1 while the last keepalive to a destination with a name arrived, else 0.",
        {"destination": ()},
    ),
    MetricSpec("bus_connected", "gauge", "1 while a broker is connected, else 0."),
    MetricSpec("bus_reconnects_total", "counter", "Connections to a broker after the first one."),
    MetricSpec(
        "messages_total",
        "counter",
        "Messages handled, by their type and by what the handler returned.",
        {"type": tuple(sorted(BY_TYPE)), "verdict": VERDICTS},
    ),
    MetricSpec(
        "builds_requested_total",
        "counter",
        "Builds asked for, by what the build server answered.",
        {**_REPO, "outcome": BUILD_OUTCOMES},
    ),
    MetricSpec(
        "gate_decisions_total",
        "counter",
        "Decisions of the build gate.",
        {**_SITE, "outcome": GATE_OUTCOMES},
    ),
    MetricSpec(
        "questions_total",
        "counter",
        "Questions to this node, by what came of them.",
        {"outcome": QUESTION_OUTCOMES},
    ),
    MetricSpec("audit_records_total", "counter", "Records in the audit log.", {"decision": DECISIONS}),
    MetricSpec(
        "webhook_requests_total",
        "counter",
        "Requests of webhook senders, by what became of them.",
        {"source": (), "result": WEBHOOK_RESULTS},
    ),
    MetricSpec(
        "web_requests_total",
        "counter",
        "Requests to the console, by what was asked for and how it was answered.",
        {"part": WEB_PARTS, "answer": WEB_ANSWERS},
    ),
    MetricSpec(
        "web_messages_total",
        "counter",
        "Messages that came to the console, by what became of them.",
        {"result": WEB_MESSAGES},
    ),
    MetricSpec("web_events_total", "counter", "Events for open pages."),
    MetricSpec("web_readers", "gauge", "Open event streams of pages and programs."),
    MetricSpec("web_lag_seconds", "gauge", "How long the last messages waited until the console's database had them."),
    MetricSpec("web_rollouts", "gauge", "Rollouts that this console coordinates."),
    MetricSpec("web_proposals", "gauge", "Rollouts that wait for people, of all consoles of the database."),
    MetricSpec(
        "notify_heard_total",
        "counter",
        "Messages that came to the daemon of notifications, by what became of them.",
        {"result": NOTIFY_HEARD},
    ),
    MetricSpec(
        "notify_sent_total",
        "counter",
        "Letters to a channel by their outcome, and lines that were left out.",
        {"channel": (), "result": NOTIFY_RESULTS},
    ),
    MetricSpec("notify_waiting", "gauge", "Lines that wait for a channel."),
    MetricSpec("release_info", "info", "The live release of each site.", {**_SITE, "release": ()}),
    MetricSpec("build_info", "info", "The version of deploykit.", {"version": ()}),
    MetricSpec("threads", "gauge", "Threads of the process."),
)
BY_NAME: Final[Mapping[str, MetricSpec]] = {spec.name: spec for spec in METRICS}
