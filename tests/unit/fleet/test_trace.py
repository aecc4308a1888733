"""A trace: the same from any order, whole where the bus lost something, and of one commit only."""

from __future__ import annotations

import json
import random
from datetime import timedelta
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploykit.fleet.recordformat import RecordedMessage
from deploykit.fleet.trace import gaps_between
from deploykit.fleet.tracebuilder import TraceBuilder
from deploykit.fleet.tracekeys import keys_of
from deploykit.fleet.tracesubject import Ambiguous
from deploykit.fleet.tracetrust import TraceTrust
from deploykit.messages import (
    BuildFinished,
    DeployProgressed,
    DeployReported,
    DeployRequested,
    Message,
    MirrorUpdated,
    RefUpdated,
    RolloutAbort,
    RolloutReported,
    SitePart,
)
from deploykit.messages.site import id_of
from deploykit.names import ZERO_ID, ObjectId, RefName, RepoName
from deploykit.settings import GrantSettings, TrustSettings
from deploykit.trust.allowed_signers import AllowedSigners
from deploykit.trust.policy import Policy
from deploykit.trust.signature import HEADER, SigningKey, sign
from deploykit.trust.sshsig import decode_header, encode_header
from deploykit.wire import Frame, decode
from tests.support.securitykeys import SoftwareSecurityKey
from tests.support.way import C1, SITE, START, WEB, Way, find, rows, traced

WHOLE = Way().whole()
OTHER = Way(ObjectId("d" * 40), RefName("refs/tags/v2"), name="b", start=START + timedelta(seconds=7)).whole()
EXPECTED = [
    ("push", "shop refs/tags/v1", "created"),
    ("build", "shop-tests", "queued"),
    ("build", "shop-tests 12", "started"),
    ("build", "shop-tests 12", "success"),
    ("mirror", "web1", "updated"),
    ("mirror", "web2", "updated"),
    ("mirror", "web3", "updated"),
    ("rollout", "a-rollout", "planned"),
    ("rollout", "a-rollout", "preparing"),
    ("command", "a-rollout", "prepare"),
    ("release", "web1", "success"),
    ("release", "web2", "success"),
    ("release", "web3", "success"),
    ("rollout", "a-rollout", "rolling"),
    ("command", "a-rollout", "activate"),
    ("release", "web1", "success"),
    ("release", "web2", "success"),
    ("release", "web3", "success"),
    ("rollout", "a-rollout", "succeeded"),
]


def kind_of(record: RecordedMessage) -> type[Message]:
    message = decode(record.headers, record.body)
    assert message is not None
    return type(message)


def without(records: list[RecordedMessage], *kinds: type[Message]) -> list[RecordedMessage]:
    return [each for each in records if kind_of(each) not in kinds]


@pytest.mark.parametrize("text", [C1, "c1c1", "v1", "refs/tags/v1", "a-push", "a-rollout"])
def test_the_whole_way_is_found_by_any_of_its_names(text: str) -> None:
    trace = traced(text, [*WHOLE, *OTHER])
    assert rows(trace) == EXPECTED
    assert trace.complete
    assert trace.notes == ()


def test_times_and_gaps_are_those_of_the_recorder() -> None:
    trace = traced("v1", WHOLE)
    assert trace.stations[0].at == START + timedelta(seconds=1)
    assert gaps_between(trace.stations)[:4] == [None, 1.0, 1.0, 1.0]


@settings(max_examples=25)
@given(st.randoms(use_true_random=False), st.integers(0, 40))
def test_order_and_copies_change_nothing(chance: random.Random, copies: int) -> None:
    records = [*WHOLE, *OTHER]
    late = [
        attrs.evolve(each, received=each.received + timedelta(hours=1)) for each in chance.choices(records, k=copies)
    ]
    mixed = [*records, *late]
    chance.shuffle(mixed)
    for text in ("v1", "c1c1", "a-rollout"):
        assert traced(text, mixed) == traced(text, records)


@given(st.randoms(use_true_random=False), st.sets(st.integers(0, len(WHOLE) - 1)))
def test_whatever_is_lost_the_order_still_changes_nothing(chance: random.Random, lost: set[int]) -> None:
    kept = [each for number, each in enumerate(WHOLE) if number not in lost]
    mixed = list(kept)
    chance.shuffle(mixed)
    found = find(C1, mixed)
    assert found == find(C1, kept)
    if found.trace is not None:
        times = [one.at for one in found.trace.stations]
        assert times == sorted(times)


# -- what was not seen ---------------------------------------------------------------------------------------------


def test_a_push_that_was_not_seen_is_shown_before_what_proves_it() -> None:
    trace = traced(C1, without(WHOLE, RefUpdated))
    first = trace.stations[0]
    assert (first.kind, first.seen, first.because) == ("push", False, "build shop-tests queued")
    assert rows(trace)[1:] == EXPECTED[1:]


@pytest.mark.parametrize("number", range(len(EXPECTED)))
def test_each_lost_station_has_its_line_where_an_effect_shows_it(number: int) -> None:
    """One message is lost at a time; the line of its station stays, as not seen, but for what has no later effect."""
    kind, subject, state = EXPECTED[number]
    whole = traced(C1, WHOLE).stations[number]
    lost = {whole.ids[0]} if kind != "command" else set(whole.ids)
    trace = traced(C1, [each for each in WHOLE if json.loads(each.body)["id"] not in lost])
    seen = [(one.kind, one.subject) for one in trace.stations if one.seen]
    unseen = [(one.kind, one.subject) for one in trace.stations if not one.seen]
    match kind, state:
        case ("rollout", _):  # other announcements of it are there
            assert unseen == []
        case ("build", "success"):
            assert unseen == []
        case ("release", _) if number > 12:
            assert (kind, subject, "running") in rows(trace)  # its progress was seen, and no report
            assert not trace.complete
        case ("release", _):
            assert (kind, subject, "running") in rows(trace)
        case ("push", _):
            assert unseen == [("push", "")]
        case ("command", _):
            assert unseen == [("command", each) for each in whole.ids]
        case _:
            assert unseen == [(kind, subject)]
    assert len(seen) >= len(EXPECTED) - 1


def test_a_prepared_node_without_report_and_progress_is_known_by_its_activation() -> None:
    lost = {"a-prepare-web2-web2-report"}
    kept = without([each for each in WHOLE if json.loads(each.body)["id"] not in lost], DeployProgressed)
    trace = traced(C1, kept)
    (unseen,) = (one for one in trace.stations if not one.seen)
    assert (unseen.kind, unseen.subject) == ("release", "web2")
    assert unseen.because == "web2 reports a later phase of a-rollout"


def test_a_node_that_was_asked_and_is_silent_is_shown() -> None:
    way = Way()
    command = way.command("deploy", *WEB)
    records = [way.record(way.push()), way.record(command), way.record(way.report(command, WEB[0]))]
    trace = traced(command.id, records)
    assert [one[1:] for one in rows(trace) if one[0] == "release"] == [
        ("web2", "asked"),
        ("web3", "asked"),
        ("web1", "success"),
    ]
    assert not trace.complete


def test_gaps_in_the_progress_are_counted() -> None:
    lost = {"a-activate-web1-web1-1"}
    trace = traced(C1, [each for each in WHOLE if json.loads(each.body)["id"] not in lost])
    texts = [one.text for one in trace.stations if one.subject == "web1" and one.kind == "release"]
    assert "events" not in texts[0]
    assert "1 events of its progress not seen" in texts[1]


# -- what belongs, and what a text means -----------------------------------------------------------------------------


def test_one_command_is_traced_with_what_came_before_it_and_not_with_its_siblings() -> None:
    trace = traced("a-activate-web2", [*WHOLE, *OTHER])
    assert [one[1] for one in rows(trace) if one[0] == "release"] == ["web2"]
    assert {one[0] for one in rows(trace)} == {"push", "build", "mirror", "rollout", "command", "release"}


def test_a_commit_inside_a_push_goes_the_way_of_its_tip() -> None:
    way = Way()
    inner = ObjectId("e" * 40)
    push = way.push()
    push = attrs.evolve(push, commits=(*push.commits, attrs.evolve(push.commits[0], id=inner)))
    records = [Way().record(push), *WHOLE[1:]]
    assert rows(traced(inner, records)) == EXPECTED


def test_an_annotated_tag_belongs_to_the_commands_for_it() -> None:
    tag = ObjectId("7" * 40)
    old = Way(name="old", start=START - timedelta(hours=1))
    before = [old.record(old.push(new=ObjectId("8" * 40), commits=()))]  # the tag named something else before
    way = Way()
    records = [*before, way.record(way.push(new=tag, commits=()))]
    records += [way.record(attrs.evolve(way.mirror(node), new=tag)) for node in WEB]
    records += without(WHOLE, RefUpdated, MirrorUpdated)
    for text in (C1, "v1"):
        trace = traced(text, records)
        assert [row for row in rows(trace) if row[0] in ("push", "mirror")] == [EXPECTED[0], *EXPECTED[4:7]]
        assert rows(trace)[-1] == EXPECTED[-1]


def test_a_ref_means_its_newest_push_and_says_that_there_were_others() -> None:
    moved = Way(ObjectId("9" * 40), name="new", start=START + timedelta(hours=1)).whole(WEB[:1])
    trace = traced("v1", [*WHOLE, *moved])
    assert {one.subject for one in trace.stations if one.kind == "rollout"} == {"new-rollout"}
    assert trace.notes == ("earlier pushes of refs/tags/v1: 1; trace them by commit",)
    assert rows(traced(C1, [*WHOLE, *moved])) == EXPECTED


def test_a_deleted_ref_is_found_and_zeros_link_nothing() -> None:
    way = Way(name="gone", start=START + timedelta(hours=1))
    gone = way.record(way.push(old=C1, new=ZERO_ID, commits=()))
    other = Way(name="gone2", ref=RefName("refs/heads/x"))
    trace = traced("v1", [*WHOLE, gone, other.record(other.push(new=ZERO_ID, commits=()))])
    assert rows(trace) == [("push", "shop refs/tags/v1", "deleted")]


@pytest.mark.parametrize(
    ("text", "meanings"),
    [
        ("cccc", ("commit " + "cccc" * 10, "commit " + "cccc" * 9 + "dddd")),
        ("v9", ("ref refs/heads/v9 of shop", "ref refs/tags/v9 of shop")),
    ],
)
def test_what_means_several_things_is_listed(text: str, meanings: tuple[str, ...]) -> None:
    way = Way()
    tips = (("refs/tags/v9", "cccc" * 10), ("refs/heads/v9", "cccc" * 9 + "dddd"))
    records = [
        way.record(way.push(id=f"p{n}", ref=RefName(ref), new=ObjectId(tip), commits=()))
        for n, (ref, tip) in enumerate(tips)
    ]
    assert find(text, records).ambiguous == Ambiguous(meanings=meanings, count=2)
    assert find("refs/tags/v9", records).trace is not None
    assert find("cccc" * 10, records).trace is not None


def test_what_is_not_there_is_not_found() -> None:
    for text in ("nothing", "ffff", "refs/heads/x", "c1"):
        assert find(text, WHOLE).subject is None


def test_an_abort_has_its_line() -> None:
    way = Way()
    records = list(WHOLE)
    abort = RolloutAbort(site=SITE, rollout="a-rollout", expires=START, reason="wrong tag", requested_by="ann")
    records.append(way.record(abort, after=5))
    assert ("rollout", "a-rollout", "abort") in rows(traced("v1", records))


# -- hostile messages -----------------------------------------------------------------------------------------------


def altered(record: RecordedMessage, change: Any) -> RecordedMessage:
    event = json.loads(record.body)
    change(event)
    return attrs.evolve(record, body=json.dumps(event).encode())


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60)
@given(st.data())
def test_no_field_of_any_message_makes_it_fail(data: st.DataObject) -> None:
    record = data.draw(st.sampled_from(WHOLE))
    event = json.loads(record.body)
    place = data.draw(st.sampled_from(["top", "data"]))
    holder = event if place == "top" else event["data"]
    holder[data.draw(st.sampled_from(sorted(holder)))] = data.draw(_JSON)
    bad = attrs.evolve(record, body=json.dumps(event).encode())
    for text in ("v1", "a-rollout"):
        find(text, [*WHOLE, bad])


def test_a_message_that_belongs_and_cannot_be_read_is_counted() -> None:
    bad = altered(WHOLE[0], lambda event: event["data"].update(old="x"))
    assert traced(C1, [*WHOLE, bad]).notes == ("1 messages of this trace cannot be read",)


@pytest.mark.parametrize(
    "body", [b"", b"\xff", b"[" * 5000, b"null", b'{"type": []}', b'{"type":"deploykit.notice.v1"}']
)
def test_what_no_trace_is_made_of_has_no_keys(body: bytes) -> None:
    for kind in ("application/cloudevents+json", "text/plain", "image/png"):
        headers = {"content-type": kind}
        assert keys_of(RecordedMessage(received=START, destination="/topic/x", headers=headers, body=body)) is None


# -- signatures -----------------------------------------------------------------------------------------------------

KEYS = {who: SigningKey.generate() for who in ("ops", "ci", *WEB)}
ALLOWED = AllowedSigners.parse("".join(f"{who} {key.public_openssh}\n" for who, key in KEYS.items()))
TRUST = TraceTrust(
    trusted=lambda: ALLOWED,
    policy=Policy.from_settings(
        TrustSettings(
            grants=(
                GrantSettings(principal="ops", types=("deploy.requested",)),
                GrantSettings(principal="ci", types=("build.finished",), repos=("shop",), jobs=("*",)),
            )
        )
    ),
)
SIGNED = Way(keys=KEYS).whole()


def test_good_signatures_are_verified_and_what_needs_none_is_unsigned() -> None:
    trace = traced("v1", SIGNED, TRUST)
    assert rows(trace) == EXPECTED
    standings = {one.kind: one.verdict.standing for one in trace.stations if one.verdict is not None}
    assert standings == {
        "push": "unsigned",
        "build": "verified",
        "mirror": "unsigned",
        "rollout": "verified",
        "command": "verified",
        "release": "verified",
    }
    assert trace.complete


def test_threat_44_a_second_signature_by_one_key_is_no_second_message() -> None:
    """Whoever hears a message can turn s into n - s. A copy that no key made must not stand for the genuine one."""
    token = SoftwareSecurityKey.ecdsa()
    allowed = AllowedSigners.parse(f"ops {token.public_openssh}")
    trust = attrs.evolve(TRUST, trusted=lambda: allowed)
    way = Way(keys=KEYS)
    command = way.record(way.command("deploy", WEB[0]))
    copies = []
    for high_s in (False, True):
        token.high_s = high_s
        frame = sign(Frame({"content-type": command.headers["content-type"]}, command.body), token)
        copies.append(attrs.evolve(command, headers=frame.headers))
    blob = bytearray(decode_header(copies[0].headers[HEADER]))
    blob[-1] ^= 1
    forged = attrs.evolve(command, headers={**copies[0].headers, HEADER: encode_header(bytes(blob))})
    for order in ([*copies, forged], [forged, *copies], [copies[1], forged, copies[0], *copies]):
        builder = TraceBuilder(trust)
        for record in order:
            builder.add(record)
        assert sorted(one.verdict.standing for one in builder.messages) == ["doubtful", "verified"]


def test_without_trusted_keys_nothing_is_verified() -> None:
    assert {one.verdict.standing for one in traced("v1", SIGNED).stations if one.verdict} == {"not verified"}


def test_a_machine_that_grants_nothing_believes_commands_by_trusted_keys_alone() -> None:
    """An operator's settings name keys and no grants: the commands that nodes obeyed are no forgeries there."""
    asks = attrs.evolve(TRUST, policy=Policy())
    assert rows(traced("v1", SIGNED, asks)) == EXPECTED
    way = Way(keys=KEYS)
    command = way.command("deploy", WEB[0])
    unsigned = traced(command.id, [way.record(way.push()), way.record(command, by="")], asks)
    assert [one.kind for one in unsigned.stations if one.verdict and not one.verdict.counts] == ["command"]


def test_a_forged_report_stands_for_nothing() -> None:
    """Somebody reports success in the name of a node that is silent."""
    way = Way(keys=KEYS)
    command = way.command("deploy", WEB[0])
    records = [way.record(way.push()), way.record(command, by="ops")]
    forged = way.report(command, WEB[0])
    for by in ("", "web2", "ops"):
        trace = traced(command.id, [*records, way.record(forged, by=by)], TRUST)
        assert not trace.complete
        doubtful = [one for one in trace.stations if one.verdict is not None and not one.verdict.counts]
        assert [(one.kind, one.state) for one in doubtful] == [("release", "success")]
        assert ("release", "web1", "asked") in rows(trace)
        assert [one.kind for one in trace.stations if not one.seen] == ["rollout"]  # it proves no fetch
        assert trace.notes == ("1 stations are not believed: see the reason of each",)


def test_a_changed_body_is_not_believed() -> None:
    command = next(each for each in SIGNED if HEADER in each.headers and b"deploy.requested" in each.body)
    bad = altered(command, lambda event: event["data"].update(requested_by="mallory"))
    trace = traced("v1", [*SIGNED, bad], TRUST)
    (doubtful,) = (one for one in trace.stations if one.verdict is not None and not one.verdict.counts)
    assert doubtful.verdict is not None
    assert "does not fit the message" in doubtful.verdict.why


def test_a_build_result_of_a_stranger_is_not_believed() -> None:
    way = Way(keys=KEYS)
    forged = way.record(way.build(BuildFinished, "forged", number=13, outcome="success"), by="web1")
    trace = traced("v1", [*SIGNED, forged], TRUST)
    assert [one.subject for one in trace.stations if one.verdict is not None and not one.verdict.counts] == [
        "shop-tests 13"
    ]


def test_a_node_does_not_announce_the_end_of_a_rollout() -> None:
    """A node's key is trusted to speak for that node alone."""
    way = Way(keys=KEYS)
    command = way.command("deploy", WEB[0])
    records = [way.record(way.push()), way.record(command, by="ops")]
    ended = way.rollout("succeeded", 1)
    for by, standing in (("ops", "verified"), ("web2", "doubtful")):
        found = traced(ended.rollout, [*records, way.record(ended, by=by)], TRUST)
        (rollout,) = (one for one in found.stations if one.kind == "rollout" and one.seen)
        assert rollout.verdict is not None
        assert rollout.verdict.standing == standing


class WayOfParts(Way):
    """A rollout of a site of two repositories, of which the push was to one."""

    def record(self, message: Message, *, by: str = "", after: float = 1.0) -> RecordedMessage:
        return super().record(self._with_parts(message), by=by, after=after)

    def _with_parts(self, message: Message) -> Message:
        theme = SitePart(repo=RepoName("theme"), ref=RefName("refs/tags/t1"), commit=ObjectId("7" * 40))
        parts = (SitePart(repo=RepoName("shop"), ref=self.ref, commit=self.commit), theme)
        version: dict[str, Any] = {"ref": None, "commit": id_of(parts), "parts": parts}
        if isinstance(message, DeployRequested | RolloutReported):
            return attrs.evolve(message, **version)
        if isinstance(message, DeployReported) and message.target is not None:
            live = version if message.commit is not None else {}
            return attrs.evolve(message, target=attrs.evolve(message.target, **version), **live)
        return message


@pytest.mark.parametrize("text", [C1, "c1c1", "a-push", "a-rollout"])
def test_the_way_of_one_of_several_repositories_is_found_whole(text: str) -> None:
    trace = traced(text, [*WayOfParts().whole(), *OTHER])
    assert rows(trace) == EXPECTED


def test_the_commit_that_stayed_shows_what_it_was_deployed_with() -> None:
    found = rows(traced("7" * 40, WayOfParts().whole()))
    assert [row for row in found if row[0] in ("command", "release")] == [
        row for row in EXPECTED if row[0] in ("command", "release")
    ]
