"""A console that proposes another thing than what was asked for gets no signature."""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import Any

import attrs
import pytest

from deploykit.errors import PolicyRefused, UsageError
from deploykit.messages import RolloutApproved
from deploykit.names import parse_node_name, parse_object_id, parse_ref_name, parse_site_name
from deploykit.via.proposing import mandate_of, require_as_asked
from deploykit.web.actions.asked import DeployAsked, NodesAsked, RollbackAsked
from deploykit.web.actions.shown import PlannedNode, PlanShown, ProposalShown
from deploykit.wire import encode
from tests.support.consoleworld import NOW

COMMIT, OTHER = "1" * 40, "2" * 40
ASKED = DeployAsked(site="shop", ref="v1.2", chosen=NodesAsked(everybody=True))
BACK = RollbackAsked(site="shop", chosen=NodesAsked(everybody=True))
NODES = tuple(PlannedNode(node=name, stage=0, to_ref="refs/tags/v1.2", to_commit=COMMIT) for name in ("web1", "web2"))
PLAN = PlanShown(site="shop", kind="deploy", ref="refs/tags/v1.2", commit=COMMIT, nodes=NODES)


def mandate(**changes: Any) -> RolloutApproved:
    made = RolloutApproved(
        id="m1",
        source="web/console",
        time=NOW,
        site=parse_site_name("shop"),
        rollout="r-1",
        ref=parse_ref_name("refs/tags/v1.2"),
        commit=parse_object_id(COMMIT),
        nodes=(parse_node_name("web1"), parse_node_name("web2")),
        phases=("prepare", "activate"),
        allow_rollback=True,
        not_before=NOW,
        not_after=NOW + timedelta(hours=1),
        requested_by="ann",
    )
    return attrs.evolve(made, **changes)


def proposal(body: bytes) -> ProposalShown:
    return ProposalShown(
        rollout="r-1",
        site="shop",
        kind="deploy",
        not_before=NOW,
        not_after=NOW,
        body=base64.b64encode(body).decode(),
    )


def test_what_was_asked_for_may_be_signed() -> None:
    held = mandate_of(proposal(encode(mandate()).body), "r-1")
    require_as_asked(held, ASKED, PLAN)
    require_as_asked(held, attrs.evolve(ASKED, ref="refs/tags/v1.2", commit=COMMIT), PLAN)
    require_as_asked(mandate_of(proposal(encode(mandate(nodes=(parse_node_name("web1"),))).body), "r-1"), ASKED, PLAN)
    back = mandate(ref=None, commit=None, phases=())
    require_as_asked(
        mandate_of(proposal(encode(back).body), "r-1"), BACK, attrs.evolve(PLAN, kind="rollback", commit="")
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"site": "docs"}, "site docs, not shop"),
        ({"nodes": ("web1", "db1")}, "on db1, which the plan did not show"),
        ({"ref": "refs/tags/v1.3"}, "ref refs/tags/v1.3, not v1.2"),
        ({"ref": "refs/heads/v1.2/x"}, "not v1.2"),
        ({"commit": OTHER}, f"commit {OTHER}"),
        ({"without_build": True}, "without a build"),
        ({"override_lock": "because"}, "in spite of a lock"),
    ],
)
def test_what_goes_beyond_it_may_not(changes: dict[str, Any], words: str) -> None:
    held = mandate_of(proposal(encode(mandate(**changes)).body), "r-1")
    with pytest.raises(PolicyRefused, match="another thing") as caught:
        require_as_asked(held, ASKED, PLAN)
    assert words in str(caught.value)


def test_a_way_back_does_not_become_a_way_on() -> None:
    held = mandate_of(proposal(encode(mandate()).body), "r-1")
    with pytest.raises(PolicyRefused, match="where nodes were to go back"):
        require_as_asked(held, BACK, attrs.evolve(PLAN, kind="rollback", commit=""))


def test_the_mandate_of_another_rollout_is_not_this_one() -> None:
    with pytest.raises(PolicyRefused, match="gave that of r-2"):
        mandate_of(proposal(encode(mandate(rollout="r-2")).body), "r-1")


@pytest.mark.parametrize("body", [b"", b"{}", b"\xff", b"[]"])
def test_what_is_no_mandate_is_refused(body: bytes) -> None:
    with pytest.raises((PolicyRefused, UsageError)):
        mandate_of(proposal(body), "r-1")


def test_bytes_that_we_would_not_write_are_refused() -> None:
    good = encode(mandate()).body
    for body in (good.replace(b'"site"', b' "site"', 1), good.replace(b'"data":{', b'"data":{"more":1,', 1)):
        assert body != good
        with pytest.raises(PolicyRefused):
            mandate_of(proposal(body), "r-1")
    with pytest.raises(PolicyRefused):
        mandate_of(attrs.evolve(proposal(good), body="***"), "r-1")
