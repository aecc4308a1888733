"""What a process counts: every name, label and value by the table, what Prometheus' own parser reads, what it costs."""

from __future__ import annotations

import contextlib
import re
import sys
import threading
from collections.abc import Iterable
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from deploykit import __version__
from deploykit.bus import Ack, Delivery, Reject, Retry, Verdict
from deploykit.bus.events import BusState, Counters
from deploykit.daemons.service import metrictable
from deploykit.daemons.service.metrics import Metrics
from deploykit.daemons.service.metrictable import METRICS, NAMED, OTHER, READ, MetricSpec
from deploykit.daemons.service.outboxsize import OutboxSize, OutboxWatch, size_of
from deploykit.outbox import Outbox, Outgoing
from deploykit.wire import Frame

DOCS = Path(__file__).parents[4] / "docs"
NAME = re.compile(r"[a-z][a-z0-9_]*\Z").match
NOTICE = "deploykit.notice.v1"


class WatchedByTest:
    """What is read of a bus."""

    def __init__(self) -> None:
        self.state = BusState.CONNECTING
        self.counters = Counters()


#: The one name of each label whose values are in the settings.
NAMES = {"site": "shop", "repo": "group/shop", "source": "forge", "channel": "ops"}


def samples(metrics: Metrics) -> list[Sample]:
    text = metrics.exposition()
    assert text is not None
    return [sample for family in text_string_to_metric_families(text.decode()) for sample in family.samples]


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    """The value of one series; None where there is none."""
    found = [s.value for s in samples(metrics) if s.name == f"deploykit_{name}" and s.labels == labels]
    assert len(found) <= 1
    return found[0] if found else None


def everything(tmp_path: Path) -> Metrics:
    """Metrics with something in each of them, and names from outside in all labels."""
    metrics = Metrics()
    metrics.expect("agent", sites=["shop"], repositories=["group/shop"], counters=["deploys_total"])
    for site in ("shop", "nowhere\n"):
        metrics.deploy_finished(site, "deploy", "success", 3.0)
        metrics.deploy_finished(site, "deploy; rm", "x" * 1000)
        metrics.gate_decided(site, "open")
    for repo in ("group/shop", "../../x"):
        metrics.mirror_fetched(repo, "updated", 1.0)
        metrics.build_requested(repo, "queued")
    metrics.message_handled("anything", "anything")
    metrics.audit_recorded("denied")
    metrics.question_decided("answered")
    metrics.expect("webhook", sources=["forge"])
    for source in ("forge", "nobody's"):
        metrics.webhook_answered(source, "queued")
        metrics.webhook_answered(source, "x" * 1000)
    metrics.expect("packages", sources=["forge"])
    for source in ("forge", "nobody's"):
        metrics.package_source_read(source, "read")
        metrics.package_source_read(source, "x" * 1000)
    metrics.web_answered("page", "2xx")
    metrics.web_answered("/etc/passwd", "x" * 1000)
    metrics.web_heard("kept", 3)
    metrics.web_heard("x" * 1000, 1)
    metrics.web_announced(2)
    metrics.web_readers(1)
    metrics.web_lag(0.1)
    metrics.web_rollouts(1, 2)
    metrics.expect("notify", channels=["ops"])
    metrics.notify_heard("taken")
    metrics.notify_heard("x" * 1000)
    for channel in ("ops", "nobody's"):
        metrics.notify_sent(channel, "sent", 1)
        metrics.notify_sent(channel, "x" * 1000, 1)
    metrics.notify_waiting(2)
    metrics.watch_bus(WatchedByTest())
    outbox = Outbox(tmp_path / "spool")
    outbox.put("/topic/x", Frame({}, b"x"))
    metrics.watch_outbox(outbox.path)
    metrics.watch_sites({"shop": lambda: "0001-v1-1a2b3c4"})
    metrics.watch_access(lambda: {"shop": 2})
    metrics.watch_keepalive(lambda: {"builds": True})
    return metrics


# -- names and labels ----------------------------------------------------------------------------------------------


def test_every_metric_of_the_table_is_shown_under_its_name_and_no_other(tmp_path: Path) -> None:
    shown = {sample.name for sample in samples(everything(tmp_path))}
    ours = {name for name in shown if not name.startswith("process_")}
    wanted = {spec.full_name for spec in METRICS if spec.kind != "histogram"}
    wanted |= {f"{s.full_name}_{part}" for s in METRICS if s.kind == "histogram" for part in ("bucket", "sum", "count")}
    assert ours == wanted
    assert {"process_resident_memory_bytes", "process_open_fds"} <= shown
    assert not any("_created" in name for name in shown)


def test_names_are_plain_prefixed_and_end_in_their_unit(tmp_path: Path) -> None:
    """The library exposes a bad name under another one instead of refusing it."""
    for sample in samples(everything(tmp_path)):
        assert NAME(sample.name), sample.name
        assert sample.name.startswith(("deploykit_", "process_")), sample.name
        assert all(NAME(label) for label in sample.labels)
    assert [problem for spec in METRICS for problem in name_problems(spec)] == []


def name_problems(spec: MetricSpec) -> Iterable[str]:
    """What is wrong with a name by its kind and unit."""
    if not NAME(spec.name) or not spec.full_name.startswith("deploykit_"):
        yield f"{spec.name}: not a name"
    if (spec.kind == "counter") != spec.name.endswith("_total"):
        yield f"{spec.name}: counters, and only they, end in _total"
    if (spec.kind == "info") != spec.name.endswith("_info"):
        yield f"{spec.name}: infos, and only they, end in _info"
    if re.search(r"(?:\b|_)(?:duration|lag|age|timestamp)(?:\b|_)", spec.name) and not spec.name.endswith("_seconds"):
        yield f"{spec.name}: a time ends in _seconds"
    if re.search(r"_(?:ms|millis|minutes|hours|kb|mb|percent)\b", spec.name):
        yield f"{spec.name}: base units only"
    if (spec.kind == "histogram") != bool(spec.buckets):
        yield f"{spec.name}: histograms, and only they, have buckets"


@pytest.mark.parametrize(
    "spec",
    [
        MetricSpec("Deploys-total", "counter", ""),
        MetricSpec("deploys", "counter", ""),
        MetricSpec("queue_total", "gauge", ""),
        MetricSpec("release", "info", ""),
        MetricSpec("mirror_lag", "gauge", ""),
        MetricSpec("pause_ms", "gauge", ""),
        MetricSpec("deploy_duration_seconds", "histogram", ""),
    ],
)
def test_a_bad_name_is_found(spec: MetricSpec) -> None:
    assert list(name_problems(spec))


def test_every_label_has_a_closed_set_and_what_is_outside_is_other(tmp_path: Path) -> None:
    named = {name: {known, OTHER} for name, known in NAMES.items()}
    seen_other = set()
    for sample in samples(everything(tmp_path)):
        spec = next((s for s in METRICS if sample.name.startswith(s.full_name)), None)
        if spec is None:
            continue
        for label, found in sample.labels.items():
            if label in READ or label == "le":
                continue
            allowed = named[label] if label in NAMED else {*spec.labels[label], OTHER}
            assert found in allowed, (sample.name, label, found)
            seen_other.add(label) if found == OTHER else None
    ours = {"phase", "outcome", "type", "verdict", "result", "part", "answer"}
    assert seen_other == {*NAMES, *ours}


def test_no_label_is_one_that_never_ends() -> None:
    for spec in METRICS:
        assert not set(spec.labels) & {"node", "ref", "commit", "request", "user", "id", "correlation_id"}
        for label, allowed in spec.labels.items():
            assert (label in NAMED or label in READ) != bool(allowed), (spec.name, label)


def test_the_words_of_labels_are_those_of_the_code() -> None:
    from typing import get_args

    from deploykit.daemons.jenkins.ports import BuildAnswerKind
    from deploykit.daemons.packages.ports import ReadOutcome
    from deploykit.messages import MirrorOutcome
    from deploykit.release.model import Outcome, Phase
    from deploykit.web.receiver.intake import WebhookResult

    assert set(metrictable.PHASES) == set(get_args(Phase))
    assert set(metrictable.DEPLOY_OUTCOMES) == set(get_args(Outcome))
    assert set(metrictable.FETCH_OUTCOMES) == set(get_args(MirrorOutcome))
    assert set(metrictable.BUILD_OUTCOMES) == set(get_args(BuildAnswerKind))
    assert set(metrictable.WEBHOOK_RESULTS) == set(get_args(WebhookResult))
    assert set(metrictable.PACKAGE_READS) == set(get_args(ReadOutcome))


def test_the_page_about_metrics_has_the_same_table() -> None:
    page = (DOCS / "metrics.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(deploykit_\w+)` \| (\w+) \| ([^|]*) \|", page, re.MULTILINE)
    assert rows == [
        (spec.full_name, spec.kind, ", ".join(f"`{label}`" for label in spec.labels) or "-") for spec in METRICS
    ]
    for words in (
        "PHASES",
        "DEPLOY_OUTCOMES",
        "FETCH_OUTCOMES",
        "PACKAGE_READS",
        "VERDICTS",
        "BUILD_OUTCOMES",
        "GATE_OUTCOMES",
        "QUESTION_OUTCOMES",
        "WEBHOOK_RESULTS",
        "NOTIFY_HEARD",
        "NOTIFY_RESULTS",
    ):
        for word in getattr(metrictable, words):
            assert f"`{word}`" in page, word
    buckets = ", ".join(f"{end:g}" for end in metrictable.DEPLOY_BUCKETS)
    assert buckets in " ".join(page.split())


def test_nothing_of_ours_is_in_the_registry_of_the_embedding_program(tmp_path: Path) -> None:
    everything(tmp_path).exposition()
    assert not [family.name for family in REGISTRY.collect() if "deploykit" in family.name]


# -- counting ------------------------------------------------------------------------------------------------------


def test_a_deploy_is_counted_and_measured_and_a_refusal_is_not_measured() -> None:
    metrics = Metrics()
    metrics.expect("agent", sites=["shop"])
    for seconds in (0.2, 45.0, 4000.0):
        metrics.deploy_finished("shop", "deploy", "success", seconds)
    metrics.deploy_finished("shop", "deploy", "refused")
    of = {"site": "shop", "phase": "deploy"}
    assert value(metrics, "deploys_total", **of, outcome="success") == 3
    assert value(metrics, "deploys_total", **of, outcome="refused") == 1
    buckets = [
        value(metrics, "deploy_duration_seconds_bucket", **of, le=le) for le in ("1.0", "60.0", "1800.0", "+Inf")
    ]
    assert buckets == [1, 2, 2, 3]
    assert value(metrics, "deploy_duration_seconds_count", **of) == 3
    assert value(metrics, "deploy_duration_seconds_sum", **of) == pytest.approx(4045.2)


def test_a_counter_that_is_expected_is_shown_before_it_counts_so_that_an_alert_sees_the_first() -> None:
    metrics = Metrics()
    metrics.expect("agent", sites=["a", "b"], repositories=["r"], counters=["deploys_total", "mirror_fetches_total"])
    assert value(metrics, "deploys_total", site="b", phase="rollback", outcome="failure") == 0
    assert value(metrics, "mirror_fetches_total", repo="r", outcome="failed") == 0
    assert value(metrics, "builds_requested_total", repo="r", outcome="queued") is None
    assert not [s for s in samples(metrics) if OTHER in s.labels.values()]


def test_names_are_those_of_the_settings_in_force_and_counters_never_go_back() -> None:
    metrics = Metrics()
    metrics.expect("agent", repositories=["old"])
    metrics.expect("jenkins", repositories=["built"])
    metrics.build_requested("old", "queued")
    metrics.expect("agent", repositories=["new"])
    for repo in ("old", "new", "built"):
        metrics.build_requested(repo, "queued")
    counts = {repo: value(metrics, "builds_requested_total", repo=repo, outcome="queued") for repo in ("old", "new")}
    assert counts == {"old": 1, "new": 1}
    assert value(metrics, "builds_requested_total", repo="built", outcome="queued") == 1
    assert value(metrics, "builds_requested_total", repo=OTHER, outcome="queued") == 1


def test_lag_is_from_the_push_to_the_fetch_and_grows_while_the_origin_fails() -> None:
    now = 1000.0
    metrics = Metrics(now=lambda: now)
    metrics.expect("agent", repositories=["r"])
    metrics.mirror_fetched("r", "unchanged")
    assert value(metrics, "mirror_lag_seconds", repo="r") is None
    assert value(metrics, "mirror_synced_timestamp_seconds", repo="r") == 1000
    now = 1010.0
    metrics.mirror_fetched("r", "updated", pushed=1008.0)
    assert value(metrics, "mirror_lag_seconds", repo="r") == 2
    now = 1020.0
    metrics.mirror_fetched("r", "failed", pushed=1019.0)
    metrics.mirror_fetched("r", "failed", pushed=1015.0)
    metrics.mirror_fetched("r", "failed")
    now = 1115.0
    assert value(metrics, "mirror_lag_seconds", repo="r") == 100
    assert value(metrics, "mirror_synced_timestamp_seconds", repo="r") == 1010
    now = 1120.0
    metrics.mirror_fetched("r", "updated")
    now = 1200.0
    assert value(metrics, "mirror_lag_seconds", repo="r") == 105
    assert value(metrics, "mirror_synced_timestamp_seconds", repo="r") == 1120
    metrics.mirror_fetched("r", "updated", pushed=5000.0)  # a clock that is ahead
    assert value(metrics, "mirror_lag_seconds", repo="r") == 0


def delivery(kind: str) -> Delivery:
    return Delivery(
        destination="/topic/x",
        headers={"deploykit-type": kind},
        body=b"",
        message_id="1",
        id="1",
        attempt=1,
        redelivered=False,
        epoch=1,
    )


@pytest.mark.parametrize(
    ("answer", "word"),
    [(None, "ack"), (Ack(), "ack"), (Retry(), "retry"), (Reject("x"), "reject"), (KeyError(), "failed")],
)
@pytest.mark.parametrize("raised", [False, True])
def test_a_counted_handler_answers_as_before(answer: BaseException | None, word: str, raised: bool) -> None:
    metrics = Metrics()
    raises = answer is not None and (raised or not isinstance(answer, Verdict))

    def handler(_: Delivery) -> Verdict | None:
        if raises:
            assert answer is not None
            raise answer
        return answer if isinstance(answer, Verdict) else None

    counted = metrics.counted(handler)
    if raises and answer is not None:
        with pytest.raises(type(answer)):
            counted(delivery(NOTICE))
    else:
        assert counted(delivery(NOTICE)) is answer
    assert value(metrics, "messages_total", type=NOTICE, verdict=word) == 1
    with contextlib.suppress(Verdict, KeyError):
        counted(delivery("a type\nof a stranger"))
    assert value(metrics, "messages_total", type=OTHER, verdict=word) == 1


def test_threads_that_count_at_once_lose_nothing() -> None:
    metrics = Metrics()

    def count() -> None:
        for _ in range(2000):
            metrics.message_handled(NOTICE, "ack")

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        work = [threading.Thread(target=count) for _ in range(8)]
        for thread in work:
            thread.start()
        for _ in range(20):
            metrics.readings()
        for thread in work:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert value(metrics, "messages_total", type=NOTICE, verdict="ack") == 16_000


# -- what is read --------------------------------------------------------------------------------------------------


def test_a_bus_shows_its_connection_and_reconnects_are_kept_when_the_next_bus_takes_its_place() -> None:
    metrics, first, second = Metrics(), WatchedByTest(), WatchedByTest()
    assert value(metrics, "bus_connected") is None
    end = metrics.watch_bus(first)
    assert (value(metrics, "bus_connected"), value(metrics, "bus_reconnects_total")) == (0, 0)
    first.state, first.counters.connects = BusState.CONNECTED, 3
    assert (value(metrics, "bus_connected"), value(metrics, "bus_reconnects_total")) == (1, 2)
    end()
    metrics.watch_bus(second)
    second.counters.connects = 2
    assert (value(metrics, "bus_connected"), value(metrics, "bus_reconnects_total")) == (0, 3)


def test_a_bus_that_two_services_share_counts_once() -> None:
    metrics, bus = Metrics(), WatchedByTest()
    ends = [metrics.watch_bus(bus), metrics.watch_bus(bus)]
    bus.counters.connects = 2
    assert value(metrics, "bus_reconnects_total") == 1
    ends[0]()
    assert value(metrics, "bus_connected") == 0
    assert value(metrics, "bus_reconnects_total") == 1
    ends[1]()
    assert value(metrics, "bus_connected") is None
    assert value(metrics, "bus_reconnects_total") == 1


def test_an_outbox_shows_how_much_waits_and_since_when(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "spool")
    assert size_of(outbox.path) == OutboxSize(0, None)
    for _ in range(2):
        outbox.put_many([Outgoing("/topic/x", Frame({}, b"x"))] * 3)
    outbox.dead_letter(next(outbox.pending()), "refused")
    first = min(Path(outbox.path).glob("*.rec"))
    assert size_of(outbox.path) == OutboxSize(2, first.stat().st_mtime)
    metrics = Metrics()
    end = metrics.watch_outbox(outbox.path)
    metrics.watch_outbox(outbox.path)()
    assert value(metrics, "outbox_records") == 2
    assert value(metrics, "outbox_oldest_timestamp_seconds") == pytest.approx(first.stat().st_mtime)
    end()
    assert value(metrics, "outbox_records") is None


def test_a_spool_that_is_gone_is_not_shown_as_empty(tmp_path: Path) -> None:
    metrics = Metrics()
    metrics.watch_outbox(str(tmp_path / "nowhere"))
    assert value(metrics, "outbox_records") is None
    assert value(metrics, "build_info", version=__version__) == 1


def test_a_long_backlog_is_not_listed_for_each_scrape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listing that takes a second is followed by a pause of twenty."""
    now, listed = [100.0], []

    def slow(path: str) -> OutboxSize:
        listed.append(path)
        now[0] += 1.0
        return OutboxSize(100_000, 1.0)

    monkeypatch.setattr("deploykit.daemons.service.outboxsize.size_of", slow)
    watch = OutboxWatch("/spool", lambda: now[0])
    for _ in range(100):
        assert watch.size() == OutboxSize(100_000, 1.0)
        now[0] += 0.25
    assert len(listed) == 2


def test_a_site_shows_the_release_that_is_live_now() -> None:
    live = {"shop": "0001-v1", "blog": ""}

    def broken() -> str:
        raise PermissionError(13, "Permission denied")

    metrics = Metrics()
    metrics.watch_sites({"shop": lambda: live["shop"], "blog": lambda: live["blog"], "wiki": broken})
    assert value(metrics, "release_info", site="shop", release="0001-v1") == 1
    live["shop"] = "0002-v2"
    assert [s.labels for s in samples(metrics) if s.name == "deploykit_release_info"] == [
        {"site": "shop", "release": "0002-v2"}
    ]


def test_counting_costs_less_than_a_hundredth_of_a_message() -> None:
    """A message costs the bus about 200 microseconds; the fastest of some tries, for a busy machine delays any one."""
    import timeit

    metrics = Metrics()
    best = min(timeit.repeat(lambda: metrics.message_handled(NOTICE, "ack"), number=1000, repeat=20)) / 1000
    assert best < 10e-6


def test_without_prometheus_client_counting_works_and_nothing_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = Metrics()
    monkeypatch.delitem(sys.modules, "deploykit.daemons.service.exposition", raising=False)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    metrics.message_handled(NOTICE, "ack")
    assert metrics.exposition() is None
