"""What a process counts while it works, and how it shows it to Prometheus.

Rules:

* Counting is an addition under a lock. prometheus-client is loaded at the first scrape, and need not be installed.
* The table in `metrictable` says which labels and values there are. Anything else counts as `other`.
* What the bus, the outbox and the sites know themselves is read when somebody asks.
* One `Metrics` serves a process over all reloads: a counter never goes back.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import product
from typing import Final, Protocol

from deploykit._version import __version__
from deploykit.bus.delivery import Delivery, Handler
from deploykit.bus.events import BusState, Counters
from deploykit.bus.verdicts import Ack, Reject, Retry, Verdict
from deploykit.daemons.service.metrictable import (
    BY_NAME,
    METRICS,
    NAMED,
    OTHER,
    BucketCounts,
    MetricReading,
    MetricSpec,
)
from deploykit.daemons.service.outboxsize import OutboxWatch
from deploykit.wire.codec import TYPE_HEADER

_VERDICTS: Final[Mapping[type[Verdict], str]] = {Ack: "ack", Retry: "retry", Reject: "reject"}


class WatchedBus(Protocol):
    """What is read of a bus."""

    @property
    def state(self) -> BusState:
        """The present state."""
        ...

    counters: Counters


class Metrics:
    """Counts what one process does. Use it from any thread.

    Args:
        now: the wall clock, seconds since 1970.
    """

    def __init__(self, *, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._values: dict[str, dict[tuple[str, ...], float]] = {spec.name: {} for spec in METRICS}
        self._durations: dict[tuple[str, ...], BucketCounts] = {}
        self._names: dict[str, dict[str, frozenset[str]]] = {label: {} for label in NAMED}
        self._expected: dict[str, frozenset[str]] = {}
        self._behind: dict[str, float] = {}
        self._buses: dict[int, tuple[WatchedBus, int]] = {}
        self._reconnects = 0
        self._outboxes: dict[str, tuple[OutboxWatch, int]] = {}
        self._sites: dict[str, Callable[[], str]] = {}
        self._access: Callable[[], Mapping[str, int]] = dict
        self._keepalive: Callable[[], Mapping[str, bool]] = dict

    # -- what may be counted -------------------------------------------------------------------------------------------

    def expect(
        self,
        service: str,
        *,
        sites: Iterable[str] = (),
        repositories: Iterable[str] = (),
        sources: Iterable[str] = (),
        channels: Iterable[str] = (),
        counters: Iterable[str] = (),
    ) -> None:
        """Set the names that a service of this process has in its settings, in place of those of its last call.

        Args:
            service: the service's name.
            sites, repositories, sources, channels: the closed sets of the labels `site`, `repo`, `source`, `channel`.
            counters: those that it counts (`deploys_total` …): they are shown as 0 from the beginning, so that an alert
                sees the first one.
        """
        with self._lock:
            self._names["site"][service] = frozenset(sites)
            self._names["repo"][service] = frozenset(repositories)
            self._names["source"][service] = frozenset(sources)
            self._names["channel"][service] = frozenset(channels)
            self._expected[service] = frozenset(counters)

    # -- counting ------------------------------------------------------------------------------------------------------

    def deploy_finished(self, site: str, phase: str, outcome: str, seconds: float | None = None) -> None:
        """Count a deploy command, obeyed or refused; `seconds`: how long it took, which a refusal does not show."""
        self._add("deploys_total", site, phase, outcome)
        if seconds is None or outcome == "refused":
            return
        spec = BY_NAME["deploy_duration_seconds"]
        with self._lock:
            key = self._key(spec, (site, phase))
            counts = self._durations.get(key)
            if counts is None:
                counts = self._durations[key] = BucketCounts([0] * (len(spec.buckets) + 1))
            counts.counts[bisect_left(spec.buckets, seconds)] += 1
            counts.total += seconds

    def mirror_fetched(self, repo: str, outcome: str, pushed: float | None = None) -> None:
        """Count a fetch of a mirror, or a comparison that found nothing new.

        Args:
            outcome: `updated`, `unchanged`, `refused` or `failed`.
            pushed: when the oldest push that it was for was made, in seconds since 1970; None where it was for none.
        """
        self._add("mirror_fetches_total", repo, outcome)
        now = self._now()
        with self._lock:
            (key,) = self._key(BY_NAME["mirror_lag_seconds"], (repo,))
            oldest = min((t for t in (pushed, self._behind.get(key)) if t is not None), default=None)
            if outcome == "failed":
                if oldest is not None:
                    self._behind[key] = oldest
                return
            self._behind.pop(key, None)
            self._values["mirror_synced_timestamp_seconds"][key,] = now
            if oldest is not None:
                self._values["mirror_lag_seconds"][key,] = max(0.0, now - oldest)

    def message_handled(self, kind: str, verdict: str) -> None:
        """Count a message by its type and by `ack`, `retry`, `reject` or `failed`."""
        self._add("messages_total", kind, verdict)

    def build_requested(self, repo: str, outcome: str) -> None:
        """Count a build that was asked for, by the kind of the server's answer."""
        self._add("builds_requested_total", repo, outcome)

    def gate_decided(self, site: str, outcome: str) -> None:
        """Count a decision of the build gate: `open`, `closed`, `not-needed` or `without-build`."""
        self._add("gate_decisions_total", site, outcome)

    def question_decided(self, outcome: str) -> None:
        """Count a question to this node: `answered`, `denied`, `unverified`, `repeated`, `dropped` or `expired`."""
        self._add("questions_total", outcome)

    def package_source_read(self, source: str, outcome: str) -> None:
        """Count a read of a package source: `read`, `locked`, `failed` or `missing`."""
        self._add("package_source_reads_total", source, outcome)

    def audit_recorded(self, decision: str) -> None:
        """Count a record of the audit log: `allowed` or `denied`."""
        self._add("audit_records_total", decision)

    def webhook_answered(self, source: str, result: str) -> None:
        """Count a request of a webhook sender, by its source and by what became of it (`queued`, `unverified` …)."""
        self._add("webhook_requests_total", source, result)

    def web_answered(self, part: str, answer: str) -> None:
        """Count a request to the console: `page`, `api`, `events`, `static` or `hook`; `2xx` …, or `aborted`."""
        self._add("web_requests_total", part, answer)

    def web_heard(self, result: str, number: int) -> None:
        """Count messages that came to the console: `kept`, `distrusted`, `unreadable` or `dropped`."""
        self._add("web_messages_total", result, number=number)

    def web_announced(self, number: int) -> None:
        """Count events for open pages."""
        self._add("web_events_total", number=number)

    def web_readers(self, number: int) -> None:
        """Show how many event streams are open."""
        with self._lock:
            self._values["web_readers"][()] = float(number)

    def web_lag(self, seconds: float) -> None:
        """Show how long the last messages waited until they were kept."""
        with self._lock:
            self._values["web_lag_seconds"][()] = max(0.0, seconds)

    def web_rollouts(self, running: int, waiting: int) -> None:
        """Show how many rollouts this console coordinates, and how many wait for people."""
        with self._lock:
            self._values["web_rollouts"][()] = float(running)
            self._values["web_proposals"][()] = float(waiting)

    def notify_heard(self, result: str) -> None:
        """Count a message that might be sent: `taken`, `ignored`, `repeated`, `distrusted` or `unreadable`."""
        self._add("notify_heard_total", result)

    def notify_sent(self, channel: str, result: str, number: int) -> None:
        """Count letters that were `sent`, put off (`later`) or `refused`; lines that were `folded` or `expired`."""
        self._add("notify_sent_total", channel, result, number=number)

    def notify_waiting(self, number: int) -> None:
        """Show how many lines wait for a channel."""
        with self._lock:
            self._values["notify_waiting"][()] = float(number)

    def counted(self, handler: Handler) -> Handler:
        """Return a handler that does what `handler` does, and counts each message and its verdict."""

        def handle(delivery: Delivery) -> Verdict | None:
            kind = delivery.headers.get(TYPE_HEADER, "")
            try:
                verdict = handler(delivery)
            except Verdict as raised:
                self.message_handled(kind, _VERDICTS.get(type(raised), OTHER))
                raise
            except BaseException:
                self.message_handled(kind, "failed")
                raise
            self.message_handled(kind, _VERDICTS.get(type(verdict), OTHER) if verdict is not None else "ack")
            return verdict

        return handle

    def _add(self, name: str, *labels: str, number: int = 1) -> None:
        spec, values = BY_NAME[name], self._values[name]
        with self._lock:
            key = self._key(spec, labels)
            values[key] = values.get(key, 0.0) + number

    def _key(self, spec: MetricSpec, labels: tuple[str, ...]) -> tuple[str, ...]:
        """Return label values, each of its closed set. Call it with the lock held."""
        return tuple(
            value if value in allowed or (label in NAMED and self._is_named(label, value)) else OTHER
            for (label, allowed), value in zip(spec.labels.items(), labels, strict=True)
        )

    def _is_named(self, label: str, value: str) -> bool:
        return any(value in names for names in self._names[label].values())

    # -- what is read when somebody asks -------------------------------------------------------------------------------

    def watch_bus(self, bus: WatchedBus) -> Callable[[], None]:
        """Show a bus' connection until the returned function is called. A bus that is watched twice counts once."""
        with self._lock:
            _, users = self._buses.get(id(bus), (bus, 0))
            self._buses[id(bus)] = (bus, users + 1)

        def end() -> None:
            with self._lock:
                _, users = self._buses.pop(id(bus))
                if users > 1:
                    self._buses[id(bus)] = (bus, users - 1)
                else:
                    self._reconnects += max(0, bus.counters.connects - 1)

        return end

    def watch_outbox(self, path: str) -> Callable[[], None]:
        """Show how much waits in a spool until the returned function is called."""
        with self._lock:
            watch, users = self._outboxes.get(path, (OutboxWatch(path), 0))
            self._outboxes[path] = (watch, users + 1)

        def end() -> None:
            with self._lock:
                watch, users = self._outboxes.pop(path)
                if users > 1:
                    self._outboxes[path] = (watch, users - 1)

        return end

    def watch_sites(self, live: Mapping[str, Callable[[], str]]) -> None:
        """Show the live release of each site: site -> what returns its name, empty for none. Replaces the last call."""
        with self._lock:
            self._sites = dict(live)

    def watch_access(self, counts: Callable[[], Mapping[str, int]]) -> None:
        """Show how many users each protected site has, as `counts` returns it. Replaces the last call."""
        with self._lock:
            self._access = counts

    def watch_keepalive(self, alive: Callable[[], Mapping[str, bool]]) -> None:
        """Show of each named destination whether the last keepalive arrived. Replaces the last call."""
        with self._lock:
            self._keepalive = alive

    # -- showing -------------------------------------------------------------------------------------------------------

    def readings(self) -> list[MetricReading]:
        """Return every metric that there is something to say about, in the order of the table."""
        with self._lock:
            outboxes = [watch for watch, _ in self._outboxes.values()]
            sites = dict(self._sites)
        # The disk is read without the lock: who counts must not wait for it.
        sizes = [size for watch in outboxes if (size := watch.size()) is not None]
        live: dict[tuple[str, ...], float] = {(site, _read(read)): 1.0 for site, read in sites.items()}
        with self._lock:
            values: dict[str, dict[tuple[str, ...], float]] = {n: dict(v) for n, v in self._values.items()}
            durations = {key: BucketCounts([*c.counts], c.total) for key, c in self._durations.items()}
            for repo, since in self._behind.items():
                values["mirror_lag_seconds"][repo,] = max(0.0, self._now() - since)
            for spec, key in self._zeros():
                values[spec.name].setdefault(key, 0.0)
            buses = [bus for bus, _ in self._buses.values()]
            reconnects = self._reconnects + sum(max(0, bus.counters.connects - 1) for bus in buses)
        if buses or reconnects:
            values["bus_reconnects_total"][()] = float(reconnects)
        if buses:
            values["bus_connected"][()] = float(all(bus.state is BusState.CONNECTED for bus in buses))
        values["access_users"] = {(site,): float(count) for site, count in self._access().items()}
        values["keepalive_up"] = {(name,): float(alive) for name, alive in self._keepalive().items()}
        if sizes:
            values["outbox_records"][()] = float(sum(size.records for size in sizes))
        if oldest := [size.oldest for size in sizes if size.oldest is not None]:
            values["outbox_oldest_timestamp_seconds"][()] = min(oldest)
        values["release_info"] = {key: value for key, value in live.items() if key[1]}
        values["build_info"] = {(__version__,): 1.0}
        values["threads"] = {(): float(threading.active_count())}
        found: list[MetricReading] = []
        for spec in METRICS:
            shown: Mapping[tuple[str, ...], float | BucketCounts] = (
                durations if spec.kind == "histogram" else values[spec.name]
            )
            if shown:
                found.append(MetricReading(spec, shown))
        return found

    def series(self, name: str) -> Mapping[tuple[str, ...], float | BucketCounts]:
        """Return the series of one metric (a name of the table): label values -> value; empty for none."""
        return next((reading.values for reading in self.readings() if reading.spec.name == name), {})

    def _zeros(self) -> Iterator[tuple[MetricSpec, tuple[str, ...]]]:
        """Yield each expected series of each counter, but for those of unknown names. Call it with the lock held."""
        for name in frozenset().union(*self._expected.values()):
            spec = BY_NAME[name]
            sets = [
                frozenset[str]().union(*self._names[label].values()) if label in NAMED else allowed
                for label, allowed in spec.labels.items()
            ]
            yield from ((spec, key) for key in product(*sets))

    def exposition(self) -> bytes | None:
        """Return all metrics in Prometheus' text format; None where prometheus-client is not installed."""
        try:
            from deploykit.daemons.service.exposition import text_of
        except ModuleNotFoundError as error:
            if error.name != "prometheus_client":
                raise
            return None
        return text_of(self.readings())


def _read(live: Callable[[], str]) -> str:
    try:
        return live()
    except OSError:  # a site that cannot be read has no release to show; the deploys say why
        return ""
