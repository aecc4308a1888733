"""Which questions are answered, in which order they are judged, and what refusals cost; no bus, no site."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import attrs
import pytest

from deploykit.audit import AuditLog
from deploykit.audit.files import read_records
from deploykit.audit.record import AuditRecord
from deploykit.bus import Ack, Bus, Delivery
from deploykit.daemons.agent.description import NodeDescriber
from deploykit.daemons.agent.factsources import FactSources
from deploykit.daemons.agent.queries import QueryHandler
from deploykit.daemons.agent.question_audit import QuestionAudit
from deploykit.daemons.service.auditing import AuditWriter
from deploykit.daemons.service.metrics import Metrics
from deploykit.errors import ConnectError, KeyFileError
from deploykit.messages import AgentInstance, DeployReported, Message, NodeDescribed, NodeQueried
from deploykit.messages.topics import TopicMap
from deploykit.names import SiteName
from deploykit.settings import FactsSettings, GrantSettings, Settings, TrustSettings
from deploykit.trust.allowed_signers import AllowedSigners
from deploykit.trust.check import Trust
from deploykit.trust.signature import HEADER, SigningKey, copy_digest, sign
from deploykit.wire import Frame, decode, encode
from tests.support.asked import CAP, NOW, SECOND, SKEW, WEB1, WEB2
from tests.support.keys import fixed_key
from tests.support.securitykeys import SoftwareSecurityKey
from tests.support.wait import wait_until

OPERATOR, BUILDER, STRANGER, NODE_KEY = (fixed_key(number) for number in range(1, 5))
SIGNERS = AllowedSigners.parse(f"ops {OPERATOR.public_openssh}\nci {BUILDER.public_openssh}\n")
SETTINGS = TrustSettings(
    grants=(
        GrantSettings(principal="ops", types=("node.queried",)),
        GrantSettings(principal="ci", types=("build.finished",), repos=("*",), jobs=("*",)),
    ),
    max_expiry=CAP.total_seconds(),
    skew=SKEW.total_seconds(),
)


class NotedBus(Bus):
    """Takes what is published, or fails."""

    def __init__(self) -> None:  # a bus that is never started needs nothing
        self.sent: list[tuple[str, Frame, bool]] = []
        self.failure: Exception | None = None

    def publish_nowait(self, destination: str, frame: Frame, **options: object) -> Future[None]:
        if self.failure is not None:
            raise self.failure
        self.sent.append((destination, frame, bool(options["persistent"])))
        return Future()


class Asked:
    """One handler, its bus, its audit and its clock."""

    def __init__(self, root: Path, trusted: Callable[[], AllowedSigners] = lambda: SIGNERS) -> None:
        self.now = NOW
        self.bus = NotedBus()
        self.metrics = Metrics()
        self.log = AuditLog(root / "audit.log", max_bytes=1 << 20, keep=2)
        self.describer = NodeDescriber(
            Settings(node=WEB1, state=root),
            FactSources(FactsSettings(own={"env": "live"}, classes_files=())),
            me=lambda: AgentInstance(instance="i", host="h"),
            twins=lambda: (),
        )
        self.handler = QueryHandler(
            TopicMap(),
            self.describer,
            NODE_KEY,
            Trust.from_settings(SETTINGS, WEB1, trusted=trusted),
            QuestionAudit(AuditWriter(self.log, "agent/web1", lambda: self.now), WEB1),
            metrics=self.metrics,
            now=lambda: self.now,
        )
        self.handler._bus = self.bus
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self.handler.run, args=(self._stop,))

    def __enter__(self) -> Asked:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self.handler.wake()
        self._thread.join(60)
        assert not self._thread.is_alive()

    def ask(self, message: Message | None = None, *, key: SigningKey | None = OPERATOR, **changes: Any) -> Frame:
        """Hand a question over, as the bus would."""
        frame = encode(message or attrs.evolve(question(), **changes))
        frame = sign(frame, key) if key is not None else frame
        self.hand(frame)
        return frame

    def hand(self, frame: Frame) -> None:
        """Hand a frame over."""
        delivery = Delivery(
            destination="/topic/deploykit.node",
            headers=frame.headers,
            body=frame.body,
            message_id="1",
            id="",
            attempt=1,
            redelivered=False,
            epoch=0,
        )
        assert isinstance(self.handler.handle(delivery), Ack)

    def counts(self) -> dict[str, float]:
        """How many questions there were, by outcome."""
        series = self.metrics.series("questions_total")
        return {key[0]: value for key, value in series.items() if isinstance(value, float)}

    def records(self) -> list[AuditRecord]:
        """What is in the audit."""
        found = read_records(self.log.path) if self.log.path.exists() else ()
        return [record for record in found if isinstance(record, AuditRecord)]

    def answers(self) -> list[NodeDescribed]:
        """What was sent."""
        found = [decode(frame.headers, frame.body) for _, frame, _ in self.bus.sent]
        return [message for message in found if isinstance(message, NodeDescribed)]


def question(**changes: Any) -> NodeQueried:
    asked = NodeQueried(source="operator/test", time=NOW, expires=NOW + 30 * SECOND, details=("facts",))
    return attrs.evolve(asked, **changes)


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[Asked]:
    with Asked(tmp_path) as made:
        yield made


def test_an_answer_is_signed_not_persistent_and_names_the_very_copy(asked: Asked) -> None:
    frame = asked.ask(id="q1")
    wait_until(lambda: asked.bus.sent, "the answer")
    ((destination, answer, persistent),) = asked.bus.sent
    assert (destination, persistent) == ("/topic/deploykit.inventory", False)
    assert HEADER in answer.headers
    (described,) = asked.answers()
    assert (described.request, described.answers, described.correlation_id) == ("q1", copy_digest(frame), "q1")
    assert (described.node, described.facts, described.instance) == (WEB1, {"env": "live"}, "i")
    assert asked.records() == []


@pytest.mark.parametrize(
    ("key", "changes", "outcome", "says"),
    [
        (None, {}, "unverified", "not signed"),
        (STRANGER, {}, "unverified", "not among the allowed signers"),
        (BUILDER, {}, "denied", "may not send NodeQueried"),
        (OPERATOR, {"expires": NOW - SKEW - SECOND}, "denied", "expired"),
        (OPERATOR, {"expires": NOW + CAP + SKEW + SECOND}, "denied", "expires further ahead"),
        (OPERATOR, {"expires": None, "time": NOW - CAP - SKEW - SECOND}, "denied", "stale"),
        (OPERATOR, {"time": NOW + SKEW + SECOND}, "denied", "from the future"),
        (OPERATOR, {"site": SiteName("bank")}, "answered", ""),
        (OPERATOR, {"audience": (WEB1, WEB2)}, "answered", ""),
        (OPERATOR, {"expires": NOW - SKEW}, "answered", ""),
    ],
)
def test_a_question_is_answered_or_refused(
    asked: Asked, key: SigningKey | None, changes: dict[str, Any], outcome: str, says: str
) -> None:
    asked.ask(key=key, **changes)
    wait_until(asked.counts, "a decision")
    assert asked.counts() == {outcome: 1.0}
    assert len(asked.bus.sent) == (outcome == "answered")
    assert [says in record.reason for record in asked.records()] == ([] if outcome == "answered" else [True])
    assert {record.decision for record in asked.records()} <= {"denied"}


def test_what_is_for_others_or_no_question_is_passed_over(asked: Asked) -> None:
    asked.ask(audience=(WEB2,))
    asked.ask(audience=())
    asked.ask(
        DeployReported(node=WEB1, site=SiteName("shop"), request="r", phase="deploy", outcome="success", time=NOW)
    )
    assert (asked.counts(), asked.bus.sent, asked.records()) == ({}, [], [])


def test_a_changed_header_forges_nothing(asked: Asked) -> None:
    frame = sign(encode(question()), OPERATOR)
    other = encode(question(details=("sites", "drift")))
    asked.hand(Frame({**other.headers, HEADER: frame.headers[HEADER]}, other.body))
    asked.hand(Frame({HEADER: frame.headers[HEADER]}, b""))
    asked.hand(Frame({HEADER: "x" * 10_000}, frame.body))
    assert asked.counts() == {"unverified": 3.0}
    assert asked.bus.sent == []


def test_a_flood_of_any_kind_is_a_few_records_and_a_few_answers(asked: Asked) -> None:
    unsigned, foreign = encode(question()), sign(encode(question()), STRANGER)
    genuine = sign(encode(question(id="q")), OPERATOR)
    began = time.monotonic()
    for _ in range(2000):
        for frame in (unsigned, foreign, genuine):
            asked.hand(frame)
    for number in range(200):
        asked.ask(key=BUILDER, id=f"d{number}")
        asked.ask(id=f"q{number}")
    seconds = time.monotonic() - began
    assert len(asked.bus.sent) <= 1 + seconds
    assert len(asked.records()) <= 3
    asked.handler.flush(float("inf"))
    totals: dict[str, int] = {}
    for record in asked.records():
        totals[record.actor] = totals.get(record.actor, 0) + int(dict(record.details).get("count", 1))
    assert sum(totals.values()) == 4000 + 200
    assert len(asked.records()) <= 5


def test_a_copy_of_a_question_costs_no_verification_whichever_signature_it_has(tmp_path: Path) -> None:
    """A copy under the same key's other signature (n - s) is a copy too."""
    token = SoftwareSecurityKey.ecdsa()
    allowed = AllowedSigners.parse(f"ops {token.public_openssh}")
    reads = 0

    def trusted() -> AllowedSigners:
        nonlocal reads
        reads += 1
        return allowed

    asked = Asked(tmp_path, trusted)  # nobody answers: the question waits
    frame = encode(question())
    for high_s in (False, True, False):
        token.high_s = high_s
        asked.hand(sign(frame, token))
    assert (reads, asked.counts()) == (1, {"repeated": 2})


def test_an_unsigned_question_reads_no_file(tmp_path: Path) -> None:
    def unreadable() -> AllowedSigners:
        raise AssertionError("the file was read")

    with Asked(tmp_path, unreadable) as asked:
        asked.ask(key=None)
        assert asked.counts() == {"unverified": 1.0}


def test_while_the_trusted_files_cannot_be_read_nothing_is_answered(tmp_path: Path) -> None:
    def unreadable() -> AllowedSigners:
        raise KeyFileError("allowed_signers: Permission denied")

    with Asked(tmp_path, unreadable) as asked:
        asked.ask()
        assert asked.counts() == {"unverified": 1.0}
        assert "Permission denied" in asked.records()[0].reason


def test_a_question_that_expires_while_it_waits_is_not_answered(asked: Asked) -> None:
    asked.ask(id="first")
    wait_until(lambda: asked.bus.sent, "the first answer")
    asked.ask(id="second")
    asked.now = NOW + 30 * SECOND + SKEW + SECOND
    wait_until(lambda: asked.counts().get("expired"), "the second's turn")
    assert [answer.request for answer in asked.answers()] == ["first"]


def test_an_answer_that_cannot_be_made_or_sent_ends_no_others(
    asked: Asked, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    describe = asked.describer.answer

    def broken(*_: object, **__: object) -> NodeDescribed:
        raise RuntimeError("a bug")

    monkeypatch.setattr(asked.describer, "answer", broken)
    asked.ask(id="one")
    wait_until(lambda: "cannot answer a question" in caplog.text, "the failure")
    monkeypatch.setattr(asked.describer, "answer", describe)
    asked.bus.failure = ConnectError("no broker")
    asked.ask(id="two")
    wait_until(lambda: not asked.handler._queue._waiting, "the lost answer")
    wait_until(lambda: not asked.handler._queue.knows("none", time.monotonic()) and not asked.handler._queue._answered)
    asked.bus.failure = None
    asked.ask(id="three")
    wait_until(lambda: asked.bus.sent, "an answer")
    assert [answer.request for answer in asked.answers()] == ["three"]
