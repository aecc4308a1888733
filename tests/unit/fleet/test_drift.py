"""Which nodes have what is wanted of a site, which do not, and why."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploykit.fleet.drift import DRIFTS, FleetReleases, NodeDrift, ShownLock, WantedRelease
from deploykit.messages import HeldRef, NodeDescribed, SiteOperation, SiteRelease, SiteState
from deploykit.names import NodeName, ObjectId, RefName, RepoName, SiteName

SHOP, REPO = SiteName("shop"), RepoName("shop")
START = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
COMMITS = {name: ObjectId(f"{number:040x}") for number, name in enumerate(("v1", "v2", "v3", "main"), 1)}


def ref_of(name: str) -> RefName:
    return RefName(f"refs/heads/{name}" if name == "main" else f"refs/tags/{name}")


def state(name: str | None, **changes: object) -> SiteState:
    if name is None:
        return SiteState(site=SHOP, repo=REPO, **changes)  # type: ignore[arg-type]
    values = {"release": f"r-{name}", "ref": ref_of(name), "commit": COMMITS[name]} | changes
    return SiteState(site=SHOP, repo=REPO, since=START, **values)  # type: ignore[arg-type]


def node(name: str, live: str | SiteState | None, *, holds: dict[str, int] | None = None) -> NodeDescribed:
    """A node with one site, and a mirror that holds refs of these ages."""
    refs = tuple(
        HeldRef(repo=REPO, ref=ref_of(each), commit=COMMITS[each], time=START + timedelta(hours=hours))
        for each, hours in (holds or {}).items()
    )
    site = live if isinstance(live, SiteState) else state(live)
    return NodeDescribed(node=NodeName(name), sites=(site,), refs=refs)


def compared(*nodes: NodeDescribed, wanted: str | None = None) -> dict[str, tuple[str, str]]:
    fleet = FleetReleases(nodes)
    want = fleet.newest_live(SHOP) if wanted is None else fleet.named_ref(SHOP, wanted)
    return {each.node: (each.drift, each.detail) for each in fleet.drift(SHOP, want).nodes}


AGES = {"v1": 1, "v2": 2, "v3": 3, "main": 5}


def test_the_newest_release_that_is_live_is_current_though_most_nodes_have_an_older_one() -> None:
    found = compared(node("web1", "v1", holds=AGES), node("web2", "v2"), node("web3", "v1"))
    assert {name: drift for name, (drift, _) in found.items()} == {
        "web1": "outdated",
        "web2": "current",
        "web3": "outdated",
    }


def test_where_no_ages_are_known_what_most_nodes_have_is_current_and_it_says_so() -> None:
    nodes = node("web1", "v1"), node("web2", "v2"), node("web3", "v1")
    wanted = FleetReleases(nodes).newest_live(SHOP)
    assert wanted is not None
    assert (wanted.commit, wanted.reason) == (COMMITS["v1"], "what most nodes have live, on 2 of 3 nodes")
    assert compared(*nodes)["web2"][0] == "other"


def test_a_ref_that_was_asked_for_decides() -> None:
    found = compared(node("web1", "v2", holds=AGES), node("web2", "v3"), node("web3", "v1"), wanted="v2")
    assert found == {"web1": ("current", ""), "web2": ("other", "newer than that"), "web3": ("outdated", "")}


def test_a_ref_that_nobody_holds_is_not_guessed() -> None:
    assert FleetReleases([node("web1", "v1", holds={"v1": 1})]).named_ref(SHOP, "v9") is None


def test_a_ref_is_found_among_the_held_and_the_live_ones() -> None:
    fleet = FleetReleases([node("web1", "v1", holds={"v3": 3})])
    for name, reason in (("v3", "mirrors hold it"), ("v1", "has it live"), ("refs/tags/v3", "mirrors")):
        found = fleet.named_ref(SHOP, name)
        assert found is not None
        assert reason in found.reason


def test_what_current_nodes_had_before_is_outdated_also_where_no_age_is_known() -> None:
    before = SiteRelease(release="r-v1", ref=ref_of("v1"), commit=COMMITS["v1"])
    found = compared(node("web1", state("v2", previous=before)), node("web2", "v2"), node("web3", "v1"))
    assert found["web3"] == ("outdated", "")


def test_a_branch_beside_tags_is_other_and_its_own_older_commit_is_outdated() -> None:
    assert compared(node("web1", "v2", holds=AGES), node("web2", "main"), wanted="v2")["web2"][0] == "other"
    old = state("main", commit=COMMITS["v1"])
    assert compared(node("web1", "main", holds=AGES), node("web2", old), wanted="main")["web2"] == ("outdated", "")


def test_the_same_commit_under_another_ref_is_current_and_named() -> None:
    same = state("main", commit=COMMITS["v2"])
    assert compared(node("web1", "v2", holds=AGES), node("web2", same), wanted="v2")["web2"] == ("current", "as main")


@pytest.mark.parametrize(
    ("changes", "drift", "detail"),
    [
        ({"modified": 0}, "current", ""),
        ({"modified": 1}, "modified", "1 path differs from the release"),
        ({"modified": 7, "commit": COMMITS["v1"], "ref": ref_of("v1")}, "modified", "7 paths differ from the release"),
        ({"problem": "its records are unreadable"}, "failed", "its records are unreadable"),
        (
            {"last": SiteOperation(number=3, phase="deploy", outcome="failure", ref=ref_of("v3"), detail="exit 1")},
            "failed",
            "deploy v3 failure: exit 1",
        ),
        ({"last": SiteOperation(number=3, phase="activate", outcome="rolled-back")}, "failed", "activate"),
        ({"last": SiteOperation(number=3, phase="deploy", outcome="interrupted")}, "failed", "interrupted"),
        ({"last": SiteOperation(number=3, phase="rollback", outcome="success")}, "current", ""),
        ({"commit": None}, "other", "not known which commit"),
    ],
)
def test_what_was_tampered_with_or_failed_last_is_shown_as_that(
    changes: dict[str, object], drift: str, detail: str
) -> None:
    found = compared(node("web1", "v2", holds=AGES), node("web2", state("v2", **changes)), wanted="v2")["web2"]
    assert found[0] == drift
    assert detail in found[1]


def test_a_node_where_nothing_is_live_is_other() -> None:
    assert compared(node("web1", "v2"), node("web2", None))["web2"] == ("other", "nothing is live")
    assert compared(node("web1", None)) == {"web1": ("other", "nothing is live")}


def test_silent_and_unexpected_nodes_have_rows_of_their_own() -> None:
    fleet = FleetReleases([node("web1", "v2", holds=AGES), node("web9", "v1")])
    found = fleet.drift(
        SHOP, fleet.newest_live(SHOP), silent=[NodeName("web2")], unexpected=[NodeName("web9"), NodeName("web8")]
    )
    assert [(each.node, each.drift) for each in found.nodes] == [
        ("web1", "current"),
        ("web2", "silent"),
        ("web9", "unexpected"),
    ]
    assert found.counts["silent"] == found.counts["unexpected"] == 1


def test_nodes_without_the_site_are_left_out_and_named() -> None:
    fleet = FleetReleases([node("web1", "v2"), NodeDescribed(node=NodeName("db1"))])
    assert fleet.nodes_without(SHOP) == ("db1",)
    assert [each.node for each in fleet.drift(SHOP, None).nodes] == ["web1"]


LIVE = st.sampled_from([None, "v1", "v2", "v3", "main"])


@given(
    lives=st.dictionaries(st.sampled_from([f"web{n}" for n in range(6)]), LIVE),
    holds=st.dictionaries(st.sampled_from(list(AGES)), st.integers(0, 9)),
    data=st.data(),
)
def test_the_order_of_answers_decides_nothing_and_every_node_has_one_row(
    lives: dict[str, str | None], holds: dict[str, int], data: st.DataObject
) -> None:
    nodes = [node(name, live, holds=holds) for name, live in lives.items()]
    again = data.draw(st.permutations(nodes))
    one, other = FleetReleases(nodes), FleetReleases(again)
    wanted = one.newest_live(SHOP)
    assert wanted == other.newest_live(SHOP)
    found = one.drift(SHOP, wanted)
    assert found == other.drift(SHOP, wanted)
    assert [each.node for each in found.nodes] == sorted(lives)
    assert sum(found.counts.values()) == len(lives)
    assert list(found.counts) == [kind for kind in DRIFTS if kind in found.counts]
    if wanted is not None:
        assert found.counts.get("current", 0) >= 1


def test_hostile_texts_are_one_line() -> None:
    bad = state("v1", problem="a\nb\x1b[31m" + "x" * 1000)
    (found,) = FleetReleases([node("web1", bad)]).drift(SHOP, None).nodes
    assert isinstance(found, NodeDrift)
    assert found.detail.isprintable()
    assert len(found.detail) <= 300


def test_a_wanted_release_is_shown_with_its_ref_and_commit() -> None:
    assert str(WantedRelease(ref=ref_of("v1"), commit=COMMITS["v1"], reason="")) == "v1 000000000000"


def test_what_is_not_current_and_locked_is_frozen_and_what_is_current_stays_it() -> None:
    lock = ShownLock(holder="ann", until=START + timedelta(hours=1), text="locked by ann until 13:00: stocktaking")
    failed = SiteOperation(number=1, phase="deploy", outcome="failure", detail="exit 1")
    fleet = FleetReleases(
        [
            node("web1", "v1", holds=AGES),
            node("web2", "v3"),
            node("web3", state("v1", last=failed)),
            node("web4", state("v3", modified=2)),
            node("web5", "v1"),
            node("web6", "main"),
        ]
    )
    wanted = fleet.named_ref(SHOP, "v3")
    found = fleet.drift(
        SHOP,
        wanted,
        silent=[NodeName("web9")],
        locked=lambda shown: None if shown is fleet._nodes[4].sites[0] else lock,
    )
    by_node = {str(each.node): (each.drift, each.detail, each.lock) for each in found.nodes}
    assert by_node["web1"] == ("frozen", "outdated; locked by ann until 13:00: stocktaking", lock)
    assert by_node["web2"] == ("current", "locked by ann until 13:00: stocktaking", lock)
    assert by_node["web3"][0] == "failed"
    assert "exit 1; locked by ann" in by_node["web3"][1]
    assert by_node["web4"][0] == "modified"
    assert by_node["web5"] == ("outdated", "", None)
    assert by_node["web6"][:2] == ("frozen", "other; newer than that; locked by ann until 13:00: stocktaking")
    assert by_node["web9"] == ("silent", "it did not answer", None)
    assert found.counts["frozen"] == 2
