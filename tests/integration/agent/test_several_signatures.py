"""One command with several signatures: reordered, dropped, added, doubled. It is acted on once, or refused. No bus."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploykit.daemons.agent import deploy_decisions
from deploykit.trust.check import Trust
from deploykit.trust.signature import copy_digest
from deploykit.wire import Frame, encode
from tests.support.keys import fixed_key
from tests.support.mandated import BLOG, KEYS, MandatedNode, parts, signed, with_parts
from tests.support.securitykeys import SoftwareSecurityKey


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MandatedNode:
    """A node whose blog ops deploy with either of two keys or with a security key."""
    monkeypatch.setattr(deploy_decisions, "_REPEAT_AFTER", 0.0)
    for name, key in (("ops2", fixed_key(21)), ("ops3", SoftwareSecurityKey.ecdsa(seed=9))):
        monkeypatch.setitem(KEYS, name, key)
    made = MandatedNode(tmp_path)
    made.trusted |= {"ops2": KEYS["ops2"], "ops3": KEYS["ops3"]}
    return made


def by(node: MandatedNode, *names: str) -> Frame:
    return signed(encode(node.command(None, site=BLOG, id="request-1", rollout=None)), *names)


def deployed(node: MandatedNode) -> int:
    """How often something was carried out."""
    return len(node.recorded("deploy.result"))


@pytest.mark.parametrize("first", [("ops",), ("ops2",), ("ops", "ops2"), ("ops2", "ops"), ("ops", "ops2", "ops3")])
def test_copies_with_other_signatures_are_one_command_and_each_gets_its_own_answer(
    node: MandatedNode, first: tuple[str, ...]
) -> None:
    both = by(node, "ops", "ops2")
    ann, bob = parts(both)
    copies = [
        by(node, *first),
        both,
        with_parts(both, bob, ann),
        by(node, *first),
        by(node, *first[:1]),
        by(node, "ops", "ops2", "ops3"),
    ]
    for copy in copies:
        node.send(copy)
    assert deployed(node) == 1
    assert [report.outcome for report in node.reports] == ["success"] * len(copies)
    assert [report.answers for report in node.reports] == [copy_digest(copy) for copy in copies]
    assert len({(report.id, report.answers) for report in node.reports}) == len({copy_digest(copy) for copy in copies})


def test_one_key_twice_is_refused_and_spends_no_id(node: MandatedNode) -> None:
    (text,) = parts(by(node, "ops"))
    node.send(with_parts(by(node, "ops"), text, text))
    assert (deployed(node), [report.outcome for report in node.reports]) == (0, ["refused"])
    node.send(by(node, "ops"))
    assert deployed(node) == 1


def test_threat_44_both_forms_of_an_ecdsa_signature_are_one_command(node: MandatedNode) -> None:
    for high in (False, True, None):
        KEYS["ops3"] = SoftwareSecurityKey.ecdsa(seed=9, high_s=high)
        node.send(by(node, "ops3"))
        node.send(by(node, "ops3", "ops"))
    assert deployed(node) == 1
    assert {report.outcome for report in node.reports} == {"success"}
    doubled = with_parts(by(node, "ops"), *parts(by(node, "ops3")), *parts(by(node, "ops3")))
    with pytest.raises(Exception, match="one key signed twice"):
        Trust.check(node.handler._trust, doubled, node.now)


@pytest.mark.parametrize("more", ["eve", "nobody", "ann"])
def test_a_signature_more_by_who_may_not_deploy_refuses_the_copy_and_not_the_command(
    node: MandatedNode, more: str
) -> None:
    node.send(by(node, "ops", more))
    assert deployed(node) == 0
    assert node.reports[-1].outcome == "refused"
    node.send(by(node, "ops"))
    assert (deployed(node), node.reports[-1].outcome) == (1, "success")


def test_copies_with_other_signatures_after_a_restart_are_still_one_command(node: MandatedNode) -> None:
    node.send(by(node, "ops", "ops2"))
    node.ids.close()
    node.start()
    for names in (("ops",), ("ops2",), ("ops2", "ops", "ops3")):
        node.send(by(node, *names))
    assert deployed(node) == 1


def test_whoever_signed_with_the_starter_may_abort_and_discard_what_it_prepared(node: MandatedNode) -> None:
    prepare = node.command(None, "prepare", site=BLOG)
    node.send(signed(encode(prepare), "ops", "ops2"))
    assert node.reports[-1].outcome == "success"
    discard = node.command(None, "discard", site=BLOG)
    assert node.ask(discard, "ops2") == "success"
