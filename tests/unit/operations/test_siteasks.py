"""What a site asks of mandates is the strictest of what the settings ask for and what nodes say."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploykit.messages import NodeDescribed, SiteState
from deploykit.names import NodeName, RepoName, SiteName
from deploykit.operations.siteasks import SiteAsks, asked_by, strictest
from deploykit.settings import NodeSiteSettings, Settings
from deploykit.trust.mandate import Requirement
from deploykit.wire import decode, encode

SHOP = SiteName("shop")
TWO = Requirement(signatures=2)
PERSON = Requirement(require="person")
BOTH = Requirement(require="person", signatures=2)


def state(require: str = "", signatures: int = 1) -> SiteState:
    return SiteState(site=SHOP, repo=RepoName("shop"), require=require, signatures=signatures)


def asks(here: Requirement | None, **states: SiteState) -> SiteAsks:
    known = here or Requirement()
    site = NodeSiteSettings(
        path=Path("/srv/shop"), repo=RepoName("shop"), require=known.require, signatures=known.signatures
    )
    settings = Settings(node=NodeName("desk"), sites={SHOP: site} if here is not None else {})
    return SiteAsks.of(settings, SHOP, {NodeName(name): each for name, each in states.items()})


@pytest.mark.parametrize(
    ("require", "signatures", "wanted"),
    [("", 1, None), ("", 0, None), ("", 2, TWO), ("person", 1, PERSON), ("person", 0, PERSON), ("two-hands", 2, BOTH)],
)
def test_what_a_node_says_is_never_less_than_one_signature_or_a_person(
    require: str, signatures: int, wanted: Requirement | None
) -> None:
    assert asked_by(state(require, signatures)) == wanted


def test_the_strictest_of_all_counts() -> None:
    assert strictest([]) is None
    assert strictest([None, TWO, None, PERSON]) == BOTH


def test_who_asks_for_more_than_the_settings_is_named() -> None:
    found = asks(None, web1=state(), web2=state(signatures=2), web3=state("person"))
    assert (found.requirement, found.here, found.nodes) == (BOTH, None, ("web2", "web3"))
    found = asks(TWO, web1=state(), web2=state(signatures=2), web3=state("person"))
    assert (found.requirement, found.here, found.nodes) == (BOTH, TWO, ("web3",))


def test_a_node_makes_nothing_laxer() -> None:
    found = asks(BOTH, web1=state(), web2=state(signatures=1))
    assert (found.requirement, found.nodes) == (BOTH, ())
    assert asks(Requirement(), web1=state()).requirement is None


def test_on_the_wire_nothing_is_said_where_nothing_is_asked_for() -> None:
    def sent(one: SiteState) -> tuple[bytes, object]:
        frame = encode(NodeDescribed(node=NodeName("web1"), sites=(one,)))
        read = decode(frame.headers, frame.body)
        assert isinstance(read, NodeDescribed)
        return frame.body, read.sites[0]

    body, read = sent(state())
    assert b'"signatures"' not in body
    assert b'"require"' not in body
    assert read == state()
    body, read = sent(state("person", 2))
    assert b'"signatures":2' in body
    assert read == state("person", 2)
