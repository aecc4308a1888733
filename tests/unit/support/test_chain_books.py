"""The books of the whole chain notice what they are for."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import attrs
import pytest

from deploykit.bus import Bus
from deploykit.messages import BuildFinished, BuildRequested, DeployReported, DeployRequested, Message, RefUpdated
from deploykit.messages.topics import TopicMap
from deploykit.names import ZERO_ID, NodeName, ObjectId, RefName, RepoName, SiteName
from deploykit.testing.fakes import FakeBus
from deploykit.trust.signature import Signers
from tests.support import signers
from tests.support.chain.books import CI, ChainBooks
from tests.support.stubjobs import StubBuild

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SHOP, REF, COMMIT = RepoName("shop"), RefName("refs/tags/v1"), ObjectId("1a" * 20)
PUSH = RefUpdated(source="git", time=NOW, repo=SHOP, ref=REF, old=ZERO_ID, new=COMMIT)
ASKED = BuildRequested(
    source="ci", time=NOW, job="shop-tests", repo=SHOP, ref=REF, commit=COMMIT, correlation_id=PUSH.id
)
BUILT = BuildFinished(
    source="ci", time=NOW, job="shop-tests", number=1, repo=SHOP, commit=COMMIT, outcome="success",
    correlation_id=PUSH.id,
)  # fmt: skip
NODES = (NodeName("web1"), NodeName("web2"))
COMMAND = DeployRequested(
    source="op", time=NOW, site=SiteName("shop"), ref=REF, commit=COMMIT, audience=NODES,
    expires=NOW + timedelta(minutes=5),
)  # fmt: skip


def report(node: str, **changes: object) -> DeployReported:
    base = DeployReported(
        source="agent", time=NOW + timedelta(seconds=1), node=NodeName(node), site=SiteName("shop"), phase="deploy",
        request=COMMAND.id, outcome="success", commit=COMMIT,
    )  # fmt: skip
    return attrs.evolve(base, **changes)  # type: ignore[arg-type]


def signer(name: str) -> Signers | None:
    return signers.one(fingerprint="SHA256:x", principals=((name,),)) if name else None


def books(*entries: tuple[Message, str]) -> ChainBooks:
    made = ChainBooks(cast("Bus", FakeBus()), TopicMap(), Path("/nowhere"), "test", patience=0.01)
    for message, who in entries:
        made.enter(message, signer(who))
    return made


def built(*results: str) -> list[StubBuild]:
    made = [StubBuild(number=n, parameters={}, item=n, environment={}) for n in range(1, len(results) + 1)]
    for build, result in zip(made, results, strict=True):
        build.result = result  # type: ignore[assignment]
    return made


GOOD = ((PUSH, ""), (ASKED, ""), (BUILT, CI))
TWICE = attrs.evolve(ASKED, perhaps_twice=True)
SECOND = attrs.evolve(BUILT, id="second", number=2)


def test_a_push_that_was_built_once_adds_up_and_so_does_one_that_was_announced_as_perhaps_twice() -> None:
    books(*GOOD, *GOOD).of_push(COMMIT, built("SUCCESS"))
    books((PUSH, ""), (TWICE, ""), (BUILT, CI), (SECOND, CI)).of_push(COMMIT, built("SUCCESS", "SUCCESS"))


@pytest.mark.parametrize(
    ("entries", "results"),
    [
        (GOOD[1:], ("SUCCESS",)),  # the push is lost
        (GOOD[::2], ("SUCCESS",)),  # nobody said that a build was asked for
        (GOOD, ()),  # not built
        (GOOD[:2], ("SUCCESS",)),  # its result is lost
        ((*GOOD, (SECOND, CI)), ("SUCCESS", "SUCCESS")),  # built twice, and nobody said so
        ((*GOOD, (attrs.evolve(ASKED, id="again"), "")), ("SUCCESS",)),  # said twice
        ((*GOOD, (attrs.evolve(BUILT, id="again"), CI)), ("SUCCESS",)),  # reported twice
        (GOOD, ("FAILURE",)),  # reported wrongly
        ((*GOOD[:2], (BUILT, "")), ("SUCCESS",)),  # not signed
        ((*GOOD[:2], (BUILT, "web1")), ("SUCCESS",)),  # signed by another
        ((*GOOD[:2], (attrs.evolve(BUILT, correlation_id="x"), CI)), ("SUCCESS",)),  # of no push
    ],
)
def test_what_is_lost_doubled_or_forged_about_a_push_is_noticed(
    entries: tuple[tuple[Message, str], ...], results: tuple[str, ...]
) -> None:
    with pytest.raises(AssertionError):
        books(*entries).of_push(COMMIT, built(*results))


def test_a_command_with_one_signed_report_of_each_node_adds_up() -> None:
    reports = books((report("web1"), "web1"), (report("web2"), "web2")).of_deploy(COMMAND)
    assert sorted(reports) == ["web1", "web2"]


@pytest.mark.parametrize(
    "change",
    [
        lambda first, second: [first],
        lambda first, second: [first, second, (attrs.evolve(first[0], id="again"), "web1")],
        lambda first, second: [first, (second[0], "")],
        lambda first, second: [first, (second[0], "web1")],
        lambda first, second: [first, (attrs.evolve(second[0], node=NodeName("web3")), "web3")],
    ],
)
def test_a_report_that_is_lost_doubled_or_forged_is_noticed(
    change: Callable[[object, object], list[tuple[Message, str]]],
) -> None:
    entries = change((report("web1"), "web1"), (report("web2"), "web2"))
    with pytest.raises(AssertionError):
        books(*entries).of_deploy(COMMAND)


def test_what_goes_live_without_a_signed_success_before_is_noticed() -> None:
    live = (report("web1"), "web1")
    books(*GOOD, live).nothing_live_unbuilt()
    books((report("web1", outcome="refused"), "web1")).nothing_live_unbuilt()
    late = attrs.evolve(BUILT, time=NOW + timedelta(minutes=1))
    failed = attrs.evolve(BUILT, outcome="failure")
    other = attrs.evolve(BUILT, commit=ObjectId("2b" * 20))
    for entry in ((BUILT, ""), (late, CI), (failed, CI), (other, CI)):
        with pytest.raises(AssertionError):
            books(entry, live).nothing_live_unbuilt()
