"""A description fits its body whatever a node has, and says what is missing."""

from __future__ import annotations

import pytest

from deploykit.daemons.agent.descriptionsize import MAX_DESCRIPTION, fit_description
from deploykit.messages import NodeDescribed
from deploykit.messages.node import HeldRef, SiteOperation, SiteState
from deploykit.names import NodeName, ObjectId, RefName, RepoName, SiteName
from deploykit.wire import decode, encode

COMMIT = ObjectId("ab" * 20)


def described(
    *, facts: int = 0, classes: int = 0, sites: int = 0, history: int = 0, refs: int = 0, value: int = 1000
) -> NodeDescribed:
    operations = tuple(SiteOperation(number=at, phase="deploy", detail="x" * 200) for at in range(history))
    return NodeDescribed(
        node=NodeName("web1"),
        facts={f"f{at:04}": "x" * value for at in range(facts)},
        classes=tuple(f"role::profile::{at}" for at in range(classes)),
        sites=tuple(SiteState(site=SiteName(f"s{at}"), repo=RepoName("r"), history=operations) for at in range(sites)),
        refs=tuple(HeldRef(repo=RepoName("r"), ref=RefName(f"refs/tags/v{at}"), commit=COMMIT) for at in range(refs)),
        refs_count=refs,
    )


def test_what_fits_is_not_touched() -> None:
    message = described(facts=20, classes=30, sites=3, history=5, refs=20, value=20)
    assert fit_description(message) is message


@pytest.mark.parametrize(
    ("much", "kept", "lost"),
    [
        ({"refs": 1000, "sites": 3, "facts": 20}, ("sites", "facts"), "refs: "),
        ({"history": 200, "sites": 10, "facts": 20}, ("sites", "facts"), "operations of each site: "),
        ({"facts": 256, "classes": 100, "sites": 3}, ("classes", "sites"), "facts: "),
        ({"classes": 1000, "facts": 60, "sites": 3}, ("sites",), "of 60, there is no room"),
        ({"sites": 1000}, (), "sites: "),
        ({"refs": 1000, "history": 200, "facts": 256, "classes": 1000, "sites": 300}, (), "refs: 0 of 1000"),
        ({"sites": 1, "history": 1000, "refs": 1000, "value": 1}, ("sites",), "refs: 0 of 1000"),
    ],
)
def test_lists_lose_their_end_refs_and_history_first(much: dict[str, int], kept: tuple[str, ...], lost: str) -> None:
    message = described(**much)
    cut = fit_description(message)
    frame = encode(cut)
    assert len(frame.body) <= MAX_DESCRIPTION
    assert decode(frame.headers, frame.body) == cut
    assert any(lost in line for line in cut.cut), cut.cut
    for name in kept:
        assert len(getattr(cut, name)) == len(getattr(message, name))
    assert list(cut.facts) == list(message.facts)[: len(cut.facts)]
    assert cut.refs_count == message.refs_count


def test_as_much_as_fits_is_kept() -> None:
    cut = fit_description(described(refs=1000, facts=20))
    assert len(encode(cut).body) > MAX_DESCRIPTION - 1000


def test_more_than_a_message_can_list_is_cut_even_where_it_would_fit() -> None:
    cut = fit_description(described(sites=1001), limit=1 << 20)
    assert (len(cut.sites), cut.cut) == (1000, ("sites: 1000 of 1001, there is no room for more",))
