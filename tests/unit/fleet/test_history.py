"""What was done to a site on several nodes, as one list."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from deploykit.fleet.history import HistoryEntry, merged
from deploykit.messages import NodeDescribed, SiteOperation, SiteState
from deploykit.names import NodeName, RepoName, SiteName

START = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


def node(name: str, *hours: float | None, site: str = "shop") -> NodeDescribed:
    history = tuple(
        SiteOperation(
            number=number, phase="deploy", started=START + timedelta(hours=each) if each is not None else None
        )
        for number, each in reversed(list(enumerate(hours, 1)))
    )
    return NodeDescribed(
        node=NodeName(name), sites=(SiteState(site=SiteName(site), repo=RepoName("shop"), history=history),)
    )


def numbers(found: tuple[HistoryEntry, ...]) -> list[tuple[str, int]]:
    return [(each.node, each.operation.number) for each in found]


def test_the_operations_of_all_nodes_are_one_list_the_newest_first() -> None:
    found = merged([node("web1", 1, 4), node("web2", 2, 3), node("web3", 9, site="blog")], SiteName("shop"))
    assert [(each.node, each.operation.number) for each in found] == [
        ("web1", 2),
        ("web2", 2),
        ("web2", 1),
        ("web1", 1),
    ]


def test_operations_of_the_same_instant_or_of_none_keep_the_order_of_their_journal() -> None:
    found = merged([node("web1", 1, 1), node("web2", None, None)], SiteName("shop"))
    assert [(each.node, each.operation.number) for each in found] == [
        ("web1", 2),
        ("web1", 1),
        ("web2", 2),
        ("web2", 1),
    ]


def test_the_end_of_an_operation_stands_for_a_beginning_that_is_not_known() -> None:
    ended = SiteOperation(number=1, phase="deploy", finished=START)
    state = SiteState(site=SiteName("shop"), repo=RepoName("shop"), history=(ended,))
    (found,) = merged([NodeDescribed(node=NodeName("web1"), sites=(state,))], SiteName("shop"))
    assert found.time == START
