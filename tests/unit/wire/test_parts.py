"""A version made of several repositories on the wire: one form or the other, never both, and ids that fit."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, ClassVar

import attrs
import pytest

from deploykit.composition import composition_id
from deploykit.errors import MessageError
from deploykit.messages import (
    MAX_PARTS,
    DeployReported,
    DeployRequested,
    Message,
    NodeDescribed,
    RolloutApproved,
    SitePart,
    SiteRelease,
)
from deploykit.messages.node import SiteState
from deploykit.messages.site import id_of, parts_named, version_of
from deploykit.names import NodeName, ObjectId, RefName, RepoName, SiteName
from deploykit.wire import CONTENT_TYPE, decode, encode
from deploykit.wire.decoder import read_event
from deploykit.wire.fitting import fitted
from deploykit.wire.schema import incompatibilities, schema

APP = SitePart(repo=RepoName("app"), ref=RefName("refs/tags/v3"), commit=ObjectId("a" * 40))
THEME = SitePart(repo=RepoName("theme"), ref=RefName("refs/heads/main"), commit=ObjectId("b" * 40))
BOTH = (APP, THEME)
NOW = datetime(2026, 12, 1, tzinfo=UTC)
SHOP = SiteName("shop")
WEB1 = NodeName("web-1")
COMMAND = DeployRequested(id="d-1", time=NOW, site=SHOP, parts=BOTH, audience=(WEB1,), expires=NOW)
ID = id_of(BOTH)


def body(message: Message) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(encode(message).body)
    return made


def read(event: dict[str, Any], **changes: object) -> Message | None:
    data = {name: value for name, value in {**event["data"], **changes}.items() if value is not ...}
    return decode({"content-type": CONTENT_TYPE}, json.dumps({**event, "data": data}).encode())


def test_a_command_names_the_parts_and_neither_ref_nor_commit() -> None:
    data = body(COMMAND)["data"]
    assert data["parts"] == [
        {"repo": "app", "ref": "refs/tags/v3", "commit": "a" * 40},
        {"repo": "theme", "ref": "refs/heads/main", "commit": "b" * 40},
    ]
    assert not {"ref", "commit"} & data.keys()
    assert read(body(COMMAND)) == COMMAND
    assert (COMMAND.ref, COMMAND.commit) == (None, composition_id({"app": APP, "theme": THEME}))  # type: ignore[dict-item]
    assert "v3+main" in COMMAND.summary


def test_a_command_for_one_repository_is_written_as_ever() -> None:
    one = DeployRequested(site=SHOP, ref=APP.ref, commit=APP.commit, audience=(WEB1,), expires=NOW)
    assert list(body(one)["data"]) == ["site", "ref", "commit", "audience", "expires", "phase", "requested_by"]
    assert read(body(one)) == one


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"parts": ...}, "data.ref: is missing, and so is parts"),
        ({"parts": ..., "ref": "refs/tags/v3"}, "data.commit: is missing"),
        ({"ref": "refs/tags/v3"}, "data.ref: not beside parts"),
        ({"ref": None}, "data.ref: not beside parts"),
        ({"commit": ID}, "data.commit: not beside parts"),
        ({"ref": "refs/tags/v3", "commit": "a" * 40}, "data.ref: not beside parts"),
        ({"parts": []}, "there are no parts"),
        ({"parts": None}, "expected a list"),
        ({"parts": {"app": {"ref": "refs/tags/v3", "commit": "a" * 40}}}, "expected a list"),
        ({"parts": body(COMMAND)["data"]["parts"][::-1]}, "each repository once, in the order of their names"),
        ({"parts": body(COMMAND)["data"]["parts"][:1] * 2}, "each repository once"),
        ({"parts": [{"repo": "app", "ref": "refs/tags/v3"}]}, "data.parts[0].commit: is missing"),
        ({"parts": [{"repo": "../app", "ref": "refs/tags/v3", "commit": "a" * 40}]}, "data.parts[0].repo"),
        ({"parts": [{"repo": "app", "ref": "v3", "commit": "a" * 40}]}, "data.parts[0].ref"),
        ({"parts": [{"repo": f"r{n:02}", "ref": "refs/tags/v3", "commit": "a" * 40} for n in range(33)]}, "at most 32"),
    ],
)
def test_a_command_in_both_forms_in_neither_or_with_other_parts_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(MessageError) as refused:
        read(body(COMMAND), **changes)
    assert says in "; ".join(refused.value.problems)


def test_as_many_parts_as_may_be_are_read() -> None:
    parts = tuple(attrs.evolve(APP, repo=RepoName(f"r{n:02}")) for n in range(MAX_PARTS))
    many = attrs.evolve(COMMAND, parts=parts, commit=id_of(parts))
    assert read(body(many)) == many


def test_a_field_of_a_part_that_we_do_not_know_is_passed_on_and_is_no_part_of_the_version() -> None:
    event = body(COMMAND)
    event["data"]["parts"][0]["signed_by"] = "ann"
    newer = read(event)
    assert isinstance(newer, DeployRequested)
    assert version_of(newer) == version_of(COMMAND)
    assert body(newer)["data"]["parts"][0]["signed_by"] == "ann"


REPORTED = DeployReported(
    node=WEB1, site=SHOP, request="d-1", phase="deploy", outcome="success", live_known=True, release="r2", commit=ID,
    parts=BOTH, target=SiteRelease(release="r2", commit=ID, parts=BOTH),
)  # fmt: skip
STATE = SiteState(site=SHOP, repo=RepoName("app"), repos=(APP.repo, THEME.repo), release="r2", commit=ID, parts=BOTH)
APPROVED = RolloutApproved(
    site=SHOP, rollout="r1", commit=ID, parts=BOTH, nodes=(WEB1,), phases=("deploy",), not_before=NOW, not_after=NOW
)  # fmt: skip


@pytest.mark.parametrize("message", [REPORTED, NodeDescribed(node=WEB1, sites=(STATE,)), APPROVED])
def test_what_names_a_version_carries_its_parts_and_the_id(message: Message) -> None:
    assert read(body(message)) == message


@pytest.mark.parametrize("changes", [{"commit": "c" * 40}, {"commit": None}, {"ref": "refs/tags/v3"}])
@pytest.mark.parametrize("message", [REPORTED, APPROVED])
def test_an_id_that_is_not_of_the_parts_is_refused(message: Message, changes: dict[str, Any]) -> None:
    with pytest.raises(MessageError, match=r"expected the id of the parts|expected none beside parts"):
        read(body(message), **changes)


def test_a_site_whose_id_is_not_of_its_parts_is_refused() -> None:
    event = body(NodeDescribed(node=WEB1, sites=(STATE,)))
    event["data"]["sites"][0]["commit"] = "c" * 40
    with pytest.raises(MessageError) as refused:
        read(event)
    assert refused.value.problems == ("data.sites[0]: commit: expected the id of the parts beside it",)


def test_reports_of_one_repository_say_nothing_of_parts() -> None:
    one = attrs.evolve(REPORTED, ref=APP.ref, commit=APP.commit, parts=(), target=None)
    assert "parts" not in body(one)["data"]


def test_no_part_is_cut_where_a_message_is_too_long() -> None:
    long = attrs.evolve(REPORTED, detail="x" * 5000)
    cut = fitted(long, lambda message: len(encode(message).body), limit=900)
    assert cut.parts == BOTH
    assert len(cut.detail) < 5000


def test_people_read_what_each_repository_contributes() -> None:
    assert parts_named(BOTH) == "app v3 aaaaaaaaaaaa, theme main bbbbbbbbbbbb"
    assert str(REPORTED.target) == f"main+v3 {ID[:12]}".replace("main+v3", "v3+main")


# -- readers that know no parts ----------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True, slots=True)
class OldDeployRequested(Message):
    """A command as the release before knew it."""

    TYPE: ClassVar[str] = DeployRequested.TYPE

    site: SiteName
    ref: RefName
    commit: ObjectId
    audience: tuple[NodeName, ...]
    expires: datetime


@attrs.frozen(kw_only=True, slots=True)
class OldDeployReported(Message):
    """A report as the release before knew it."""

    TYPE: ClassVar[str] = DeployReported.TYPE

    node: NodeName
    ref: RefName | None = None
    commit: ObjectId | None = None


def test_an_older_node_refuses_a_command_that_names_parts() -> None:
    with pytest.raises(MessageError) as refused:
        read_event(OldDeployRequested, body(COMMAND))
    assert refused.value.problems == ("data.ref: is missing", "data.commit: is missing")


def test_an_older_reader_of_a_report_takes_the_id_for_the_commit_and_passes_the_parts_on() -> None:
    old = read_event(OldDeployReported, body(REPORTED))
    assert (old.ref, old.commit) == (None, ID)
    assert old.extra["parts"] == body(REPORTED)["data"]["parts"]


def test_a_new_form_is_a_change_that_a_mixed_fleet_can_take_and_no_other_is() -> None:
    new = schema(DeployRequested)["properties"]["data"]
    names = {name: kind for name, kind in new["properties"].items() if name != "parts"}
    old = {k: v for k, v in new.items() if k != "oneOf"} | {
        "properties": names,
        "required": ["site", "ref", "commit", "audience", "expires"],
    }
    assert incompatibilities(old, new) == []
    without = new | {"oneOf": [{"required": ["ref", "commit"]}, {"required": ["phase"]}]}  # in place of a known field
    assert incompatibilities(old, without)
    assert incompatibilities(old, {k: v for k, v in new.items() if k != "oneOf"})
    assert incompatibilities(new, old)
